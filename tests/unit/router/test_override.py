"""The key that override cookies are signed with, and the command that makes them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.cli.program import run
from milkrun.errors import InputRefused
from milkrun.model import ServiceName, VersionName
from milkrun.router.override import cookie_name, cookie_value
from milkrun.router.override_key import key_at

GOAT = ServiceName("goat")


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    file = tmp_path / "state" / "override.key"
    first = key_at(file)
    assert key_at(file) == first
    assert len(first) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert key_at(tmp_path / "other.key") != first
    assert [path.name for path in file.parent.iterdir()] == ["override.key"]


def test_routers_that_start_at_once_have_one_key(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: key_at(tmp_path / "override.key"), range(64)))
    assert len(keys) == 1


@pytest.mark.parametrize("text", [b"", b"short", b"a" * 40 + b"\n" + b"b" * 40, b"a" * 5000])
def test_a_file_that_holds_no_key_is_refused(tmp_path, text):
    file = tmp_path / "override.key"
    file.write_bytes(text)
    file.chmod(0o600)
    with pytest.raises(InputRefused, match="one line"):
        key_at(file)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / "override.key"
    file.write_text("k" * 64)
    file.chmod(0o644)
    with pytest.raises(InputRefused, match="others may read it") as refused:
        key_at(file)
    assert refused.value.remedy == f"chmod 600 {file}"


def test_a_link_and_a_pipe_are_no_key(tmp_path):
    key_at(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe"):
        with pytest.raises(InputRefused):
            key_at(tmp_path / name)


@given(st.from_regex(r"[A-Za-z0-9._+-]{1,128}", fullmatch=True), st.integers(0, 10**12))
def test_the_cookie_says_what_is_signed(version, until):
    service, said, end, signature = cookie_value(GOAT, VersionName(version), until, b"k").split(":")
    assert (service, said, end) == ("goat", version, str(until))
    assert signature == hmac.new(b"k", f"goat:{version}:{until}".encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("version", ["", "a:b", "a;b", "a b", "é"])
def test_what_is_no_version_is_not_signed(version):
    with pytest.raises(InputRefused):
        cookie_value(GOAT, VersionName(version), 1, b"k")


def test_the_command_prints_the_cookie(tmp_path, capsys):
    key = tmp_path / "override.key"
    assert run(["override", "goat", "0.0.2", "--key", str(key), "--hours", "1"]) == 0
    line = capsys.readouterr().out.strip()
    name, _, value = line.partition("=")
    until = int(value.split(":")[2])
    assert name == cookie_name(GOAT)
    assert value == cookie_value(GOAT, VersionName("0.0.2"), until, key_at(key))

    assert run(["override", "goat", "0.0.2", "--key", str(key), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == name
    assert found["until"] - until > 6 * 3600
    assert found["value"].startswith(f"goat:0.0.2:{found['until']}:")


def test_the_command_says_when_no_router_would_heed_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "milkrun.toml").write_text('name = "farm"\n')
    (tmp_path / "services").mkdir()
    file = tmp_path / "services" / "goat.toml"
    monkeypatch.chdir(tmp_path)
    for traffic, said in (("", True), ('[traffic]\noverride = "cookie"\n', False)):
        file.write_text(f'command = ["true"]\n{traffic}')
        assert run(["override", "goat", "0.0.2"]) == 0
        assert ("no router heeds it" in capsys.readouterr().err) == said
    assert (tmp_path / ".milkrun" / "override.key").is_file()


@pytest.mark.parametrize("words", [["Goat", "1"], ["goat", "a b"], ["goat", "1", "--hours", "0"]])
def test_the_command_refuses(words, tmp_path, capsys):
    assert run(["override", *words, "--key", str(tmp_path / "key")]) in (2, 8)
    assert capsys.readouterr().out == ""
