"""What Consul's variables make of the client's TLS, and what they say when they are wrong."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from certificates import Authority, encrypted

from milkrun.consul import Address
from milkrun.consul.tls import Tls, switch
from milkrun.errors import InputRefused


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_each_variable_has_its_place():
    variables = {
        "CONSUL_CACERT": "ca",
        "CONSUL_CAPATH": "folder",
        "CONSUL_CLIENT_CERT": "cert",
        "CONSUL_CLIENT_KEY": "key",
        "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
        "CONSUL_HTTP_SSL_VERIFY": "0",
    }
    assert Tls.from_environment(variables) == Tls(
        ca_file="ca",
        ca_folder="folder",
        cert="cert",
        key="key",
        server_name="server.dc1.consul",
        verify=False,
    )
    assert Tls.from_environment({}) == Tls()


@pytest.mark.parametrize(
    ("said", "name"),
    [("a.example", "a.example"), ("a.example:8501", "a.example"), ("::1", "::1"), ("a:b", "a:b")],
)
def test_a_port_is_no_part_of_the_name(said, name):
    assert Tls.from_environment({"CONSUL_TLS_SERVER_NAME": said}).server_name == name


@pytest.mark.parametrize(
    ("said", "is_on"), [("", None), ("1", True), ("true", True), ("T", True), ("0", False), ("False", False)]
)
def test_a_switch_is_read_as_go_reads_it(said, is_on):
    for otherwise in (True, False):
        assert switch("X", {"X": said}, otherwise=otherwise) is (otherwise if is_on is None else is_on)


def test_what_is_neither_true_nor_false_is_refused_and_not_taken_for_plain_http(monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_SSL", "yes")
    with pytest.raises(InputRefused, match="CONSUL_HTTP_SSL is 'yes': neither true nor false"):
        Address.from_environment()


@pytest.mark.parametrize(
    ("address", "secure", "url"),
    [
        ("", "", "http://127.0.0.1:8500"),
        ("", "true", "https://127.0.0.1:8500"),
        ("r:1", "true", "https://r:1"),
        ("http://r:1", "true", "https://r:1"),  # as Consul's own: asked on 1.8.7
        ("http://r:1", "false", "http://r:1"),
        ("https://r:1", "", "https://r:1"),
        ("https://r:1", "false", "https://r:1"),
    ],
)
def test_where_tls_is_asked_for_there_is_no_plain_http(monkeypatch, address, secure, url):
    monkeypatch.setenv("CONSUL_HTTP_ADDR", address)
    monkeypatch.setenv("CONSUL_HTTP_SSL", secure)
    found = Address.from_environment()
    assert (found.url, found.secure) == (url, url.startswith("https"))
    if address:
        monkeypatch.delenv("CONSUL_HTTP_ADDR")
        assert Address.from_environment(address).url == url


def test_a_context_takes_no_old_tls_and_checks_names(authority):
    for tls in (Tls(), Tls(ca_file=authority.file)):
        context = tls.context()
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED


def test_only_the_named_authorities_are_trusted(authority, tmp_path):
    folder = tmp_path / "trusted" / "deeper"
    folder.mkdir(parents=True)
    (folder / "any-name.txt").write_bytes(Path(authority.file).read_bytes())
    assert len(Tls(ca_file=authority.file).context().get_ca_certs()) == 1
    assert len(Tls(ca_folder=str(tmp_path / "trusted")).context().get_ca_certs()) == 1
    both = Tls(ca_file=authority.file, ca_folder=str(tmp_path / "nowhere"))
    assert len(both.context().get_ca_certs()) == 1


def test_no_verification_is_only_what_was_asked_for(authority):
    context = Tls(ca_file=authority.file, verify=False).context()
    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname


def refused(**tls: str) -> str:
    with pytest.raises(InputRefused) as caught:
        Tls(**tls).context()
    assert caught.value.remedy
    return caught.value.message


def test_what_is_wrong_with_a_file_is_told_with_its_variable(authority, tmp_path):
    pair, other = authority.pair("me"), authority.pair("you")
    missing, empty = str(tmp_path / "missing"), str(tmp_path / "empty")
    Path(empty).touch()
    (tmp_path / "folder").mkdir()
    assert refused(ca_file=missing) == f"CONSUL_CACERT: {missing} cannot be read: no such file or directory"
    assert refused(ca_file=empty) == f"CONSUL_CACERT: there is no certificate in {empty}"
    assert "there are no files in" in refused(ca_folder=str(tmp_path / "folder"))
    assert "there are no files in" in refused(ca_folder=missing)
    (tmp_path / "folder" / "notes").write_text("no certificate")
    assert "CONSUL_CAPATH: there is no certificate in" in refused(ca_folder=str(tmp_path / "folder"))
    assert refused(cert=pair.cert) == "CONSUL_CLIENT_CERT is set without CONSUL_CLIENT_KEY"
    assert refused(key=pair.key) == "CONSUL_CLIENT_KEY is set without CONSUL_CLIENT_CERT"
    assert refused(cert=missing, key=pair.key).startswith(f"CONSUL_CLIENT_CERT: {missing} cannot be read")
    assert refused(cert=pair.cert, key=missing).startswith(f"CONSUL_CLIENT_KEY: {missing} cannot be read")
    for cert, key in ((pair.cert, other.key), (empty, pair.key), (pair.cert, empty)):
        assert "are not a certificate and its key" in refused(cert=cert, key=key)


def test_a_key_with_a_password_asks_nobody(authority):
    pair = authority.pair("me")
    assert "is encrypted" in refused(cert=pair.cert, key=encrypted(pair.key))


def test_the_variables_are_read_when_they_are_needed(monkeypatch):
    assert os.environ.get("CONSUL_CACERT") is None
    monkeypatch.setenv("CONSUL_CACERT", "somewhere")
    assert Address.from_environment().tls.ca_file == "somewhere"
