"""TLS on both sides: our registry to its clients, our client to registries, and Consul's own tools as the judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from certificates import Authority, Pair, encrypted
from ports import free_ports

from milkrun.consul import Address, Registry
from milkrun.consul.tls import Tls
from milkrun.errors import InputRefused, RegistryUnreachable
from milkrun.registry.http import tls as registry_tls
from milkrun.registry.http.connections import Connections, listening
from milkrun.registry.http.limits import Limits
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.tls import TlsFiles
from milkrun.registry.server import running

ROOT = Path(__file__).parents[3]
HERE = ("127.0.0.1", "localhost")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "stranger")


@asynccontextmanager
async def secured(folder: Path, files: TlsFiles) -> AsyncIterator[str]:
    """A registry that speaks HTTPS serves at this URL meanwhile."""
    async with running(("127.0.0.1", 0), folder / "data", node="n1", tls=files) as (_, (host, port)):
        yield f"https://{host}:{port}"


async def leader(url: str, tls: Tls) -> str:
    async with Registry(Address(url=url, tls=tls)) as registry:
        return await registry.leader()


async def unreachable(url: str, tls: Tls) -> str:
    with pytest.raises(RegistryUnreachable) as caught:
        await leader(url, tls)
    return caught.value.message.partition("does not answer ")[2]


# Our registry, our client


async def test_all_that_goes_by_http_goes_by_https(tmp_path, authority):
    async with (
        secured(tmp_path, authority.pair(*HERE).shown()) as url,
        Registry(Address(url=url, tls=Tls(ca_file=authority.file))) as registry,
    ):
        large = os.urandom(512 * 1024)
        assert await registry.put("large", large)
        assert (await registry.ask("GET", "/v1/kv/large", params={"raw": ""})).body == large
        index = (await registry.ask("GET", "/v1/kv/a", accept=(404,))).index
        async with asyncio.TaskGroup() as tasks:
            params = {"index": str(index), "wait": "1m"}
            waiting = tasks.create_task(registry.ask("GET", "/v1/kv/a", params=params, wait_s=60))
            while not waiting.done():
                await registry.put("a", b"1")
                await asyncio.wait([waiting], timeout=0.05)
        assert json.loads((await waiting).body)[0]["Value"] == "MQ=="


async def test_what_is_too_large_is_refused_in_words_and_the_connection_ends(tmp_path, authority):
    context = Tls(ca_file=authority.file).context()
    mistakes: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, mistake: mistakes.append(mistake))
    async with secured(tmp_path, authority.pair(*HERE).shown()) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99000000\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.read()).startswith(b"HTTP/1.1 413")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert mistakes == []


async def test_a_client_that_goes_away_leaves_no_parked_query_behind(tmp_path, authority, caplog):
    context = Tls(ca_file=authority.file).context()
    shown = authority.pair(*HERE).shown()
    async with (
        asyncio.timeout(20),
        running(("127.0.0.1", 0), tmp_path / "data", node="n1", tls=shown) as (engine, (host, port)),
    ):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(b"GET /v1/kv/a?index=99999&wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while len(engine.parked) != 1:
            await asyncio.sleep(0.005)
        writer.close()
        await writer.wait_closed()
        while len(engine.parked) != 0:
            await asyncio.sleep(0.005)
    assert [each.message for each in caplog.records if each.name == "asyncio"] == []


async def test_old_tls_and_plain_http_get_nothing(tmp_path, authority):
    # OpenSSL may refuse old TLS by itself, by how the system has set it up: the registry does not lean on that.
    assert authority.pair(*HERE).shown().context().minimum_version == ssl.TLSVersion.TLSv1_2
    async with secured(tmp_path, authority.pair(*HERE).shown()) as url:
        old = Tls(ca_file=authority.file).context()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=old)
        plain = url.replace("https", "http")
        assert "is it https:// instead of http://?" in await unreachable(plain, Tls())
        assert await leader(url, Tls(ca_file=authority.file)), "and serves on"


async def test_a_certificate_that_proves_nothing_is_refused_and_it_is_said_why(tmp_path, authority, stranger):
    trusted = Tls(ca_file=authority.file)
    async with secured(tmp_path, authority.pair("registry.example.org").shown()) as url:
        assert "is for another name" in await unreachable(url, trusted)
        assert await leader(url, Tls(ca_file=authority.file, server_name="registry.example.org"))
        other = Tls(ca_file=authority.file, server_name="other.example.org")
        assert "is for another name" in await unreachable(url, other)
        assert "is not trusted here" in await unreachable(url, Tls(ca_file=stranger.file))
        assert "is not trusted here" in await unreachable(url, Tls())
        assert await leader(url, Tls(verify=False))
    async with secured(tmp_path, authority.pair(*HERE, expired=True).shown()) as url:
        assert "has expired" in await unreachable(url, trusted)


async def test_with_an_authority_only_its_clients_come_in(tmp_path, authority, stranger):
    mine, theirs = authority.pair("me"), stranger.pair("me")
    async with secured(tmp_path, authority.pair(*HERE).shown(ca=authority.file)) as url:

        def showing(pair: Pair) -> Tls:
            return Tls(ca_file=authority.file, cert=pair.cert, key=pair.key)

        assert await leader(url, showing(mine))
        assert "it wants a client's certificate" in await unreachable(url, Tls(ca_file=authority.file))
        assert "does not take the certificate" in await unreachable(url, showing(theirs))
        late = authority.pair("me", expired=True)
        assert "does not take the certificate" in await unreachable(url, showing(late))


# Clients that take their time


@asynccontextmanager
async def hasty(files: TlsFiles) -> AsyncIterator[tuple[Connections, int]]:
    """A listener with little patience, and its port."""

    async def app(_: Request) -> Reply:
        return Reply()

    limits = Limits(head_s=0.2, idle_s=0.2, linger_s=0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with listening(app, listener, limits=limits, tick_s=0.02, tls=files.context()) as connections:
            yield connections, listener.getsockname()[1]


async def test_who_begins_no_handshake_is_cut_off(authority):
    async with hasty(authority.pair(*HERE).shown()) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_who_does_not_say_goodbye_is_cut_off(authority):
    context = Tls(ca_file=authority.file).context()
    async with hasty(authority.pair(*HERE).shown()) as (connections, port):
        with socket.create_connection(("127.0.0.1", port)) as plain:
            client = await asyncio.to_thread(context.wrap_socket, plain, server_hostname="localhost")
            async with asyncio.timeout(20):
                while not len(connections):
                    await asyncio.sleep(0.01)
                while len(connections):
                    await asyncio.sleep(0.01)
            client.close()


# Certificates that change


@asynccontextmanager
async def renewable(
    folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, Pair]]:
    """A registry that looks at its files all the time."""
    shown = Pair(str(folder / "shown.pem"), str(folder / "shown.key"))
    replace(shown, authority.pair(*HERE))
    monkeypatch.setitem(registry_tls.renewing.__kwdefaults__, "look_s", 0.02)
    async with secured(folder, shown.shown()) as url:
        yield url, shown


def replace(shown: Pair, new: Pair) -> None:
    for there, source in ((shown.key, new.key), (shown.cert, new.cert)):
        shutil.copy(source, f"{there}.new")
        Path(f"{there}.new").replace(there)


async def serial(url: str, authority: Authority) -> str:
    """The serial number of the certificate that a new connection gets."""
    context = Tls(ca_file=authority.file).context()
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=context)
    found = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return str(found)


async def test_a_new_certificate_is_shown_without_a_restart_and_old_connections_stay(
    tmp_path, authority, monkeypatch
):
    async with (
        renewable(tmp_path, authority, monkeypatch) as (url, shown),
        Registry(Address(url=url, tls=Tls(ca_file=authority.file))) as registry,
    ):
        before = await serial(url, authority)
        index = (await registry.ask("GET", "/v1/kv/a", accept=(404,))).index
        async with asyncio.TaskGroup() as tasks:
            params = {"index": str(index), "wait": "1m"}
            waiting = tasks.create_task(registry.ask("GET", "/v1/kv/a", params=params, wait_s=60))
            replace(shown, authority.pair(*HERE))
            async with asyncio.timeout(20):
                while await serial(url, authority) == before:
                    await asyncio.sleep(0.02)
            assert not waiting.done()
            await registry.put("a", b"1")
        assert (await waiting).index > index


async def test_a_broken_new_pair_is_not_taken_and_it_is_said(tmp_path, authority, monkeypatch):
    async with renewable(tmp_path, authority, monkeypatch) as (url, shown):
        before = await serial(url, authority)
        with structlog.testing.capture_logs() as said:
            for spoil in (lambda: Path(shown.key).write_text("half of"), Path(shown.cert).unlink):
                count = len(said)
                spoil()
                async with asyncio.timeout(20):
                    while len(said) == count:
                        await asyncio.sleep(0.02)
                assert await serial(url, authority) == before
        assert {each["event"] for each in said} == {"the new certificate is not taken; the old one stays"}
        assert said[0]["reason"] == f"{shown.key}: there is no private key in it"
        assert said[-1]["reason"] == f"{shown.cert}: it cannot be read: no such file or directory"
        replace(shown, authority.pair(*HERE))
        async with asyncio.timeout(20):
            while await serial(url, authority) == before:
                await asyncio.sleep(0.02)


# Files that are wrong at the start


def test_what_is_wrong_with_the_files_is_told(tmp_path, authority):
    pair, other = authority.pair(*HERE), authority.pair(*HERE)
    missing, empty = str(tmp_path / "missing"), str(tmp_path / "empty")
    Path(empty).touch()

    def refused(cert: str, key: str, ca: str = "") -> str:
        with pytest.raises(InputRefused) as caught:
            Pair(cert, key).shown(ca).context()
        assert caught.value.remedy
        return caught.value.message

    assert refused(missing, pair.key) == f"{missing}: it cannot be read: no such file or directory"
    assert refused(pair.cert, missing) == f"{missing}: it cannot be read: no such file or directory"
    assert refused(pair.cert, pair.key, missing).startswith(f"{missing}: it cannot be read")
    assert refused(str(tmp_path), pair.key) == f"{tmp_path}: it cannot be read: is a directory"
    assert refused(empty, pair.key) == f"{empty}: there is no certificate in it"
    assert refused(pair.cert, empty) == f"{empty}: there is no private key in it"
    assert refused(pair.cert, pair.key, empty) == f"{empty}: there is no certificate in it"
    assert refused(pair.cert, other.key) == (
        f"{other.key}: the private key is not that of the certificate in {pair.cert}"
    )
    assert "nobody is there to type its password" in refused(pair.cert, encrypted(pair.key))


def milkrun(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "milkrun", "registry", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_says_what_is_wrong_and_ends_with_8(tmp_path, authority):
    pair, other = authority.pair(*HERE), authority.pair(*HERE)
    data = ("--data", str(tmp_path / "data"))
    ended = milkrun("--tls-cert", pair.cert, "--tls-key", other.key, *data, folder=tmp_path)
    assert ended.returncode == 8, ended.stderr
    assert f"{other.key}: the private key is not that of the certificate" in ended.stderr
    assert "next: " in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = milkrun("--tls-cert", pair.cert, *data, folder=tmp_path)
    assert ended.returncode == 2
    assert "--tls-key" in ended.stderr
    ended = milkrun("--allow-host", "http://x", *data, folder=tmp_path)
    assert ended.returncode == 8
    assert "'http://x' is not a host's name" in ended.stderr


# Consul's own tools


def consul_program() -> str:
    return os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")


async def consul_cli(*arguments: str, **variables: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        consul_program(),
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], **variables},
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.needs("consul")
async def test_consuls_command_line_talks_with_ours(tmp_path, authority, stranger):
    mine = authority.pair("me")
    async with secured(tmp_path, authority.pair(*HERE).shown(ca=authority.file)) as url:
        trust = {"CONSUL_HTTP_ADDR": url, "CONSUL_CACERT": authority.file}
        shown = {"CONSUL_CLIENT_CERT": mine.cert, "CONSUL_CLIENT_KEY": mine.key}
        put = await consul_cli("kv", "put", "a", "1", **trust, **shown)
        assert put == (0, "Success! Data written to: a\n")
        assert await consul_cli("kv", "get", "a", **trust, **shown) == (0, "1\n")
        status, text = await consul_cli("kv", "get", "a", **trust)
        assert status == 1, text
        status, text = await consul_cli(
            "kv", "get", "a", **{**trust, "CONSUL_CACERT": stranger.file}, **shown
        )
        assert status == 1
        assert "x509" in text


@contextlib.contextmanager
def consul(folder: Path, authority: Authority, pair: Pair, *, mutual: bool) -> Iterator[str]:
    """A real Consul that speaks HTTPS with this certificate serves at this URL meanwhile."""
    https, server, serf = free_ports(3)
    settings = {
        "node_name": "n1",
        "ports": {"http": -1, "https": https, "server": server, "serf_lan": serf, "serf_wan": -1}
        | {"dns": -1, "grpc": -1},
        "disable_update_check": True,
        "ca_file": authority.file,
        "cert_file": pair.cert,
        "key_file": pair.key,
        "verify_incoming_https": mutual,
    }
    (folder / "consul.json").write_text(json.dumps(settings))
    command = [consul_program(), "agent", "-dev", "-bind", "127.0.0.1", "-config-file", "consul.json"]
    with subprocess.Popen([*command, "-log-level", "err"], cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"https://127.0.0.1:{https}"
        finally:
            process.kill()


async def led(url: str, tls: Tls) -> None:
    """Returns when the Consul has a leader."""
    async with asyncio.timeout(60), Registry(Address(url=url, tls=tls)) as registry:
        while True:
            with contextlib.suppress(RegistryUnreachable):
                if await registry.leader():
                    return
            await asyncio.sleep(0.1)


@pytest.mark.needs("consul")
async def test_our_client_talks_with_a_consul_and_believes_no_wrong_one(
    tmp_path, authority, stranger, monkeypatch
):
    mine = authority.pair("me")
    with consul(tmp_path, authority, authority.pair("server.dc1.consul"), mutual=True) as url:
        for name, value in {
            "CONSUL_HTTP_ADDR": url.removeprefix("https://"),
            "CONSUL_HTTP_SSL": "true",
            "CONSUL_CACERT": authority.file,
            "CONSUL_CLIENT_CERT": mine.cert,
            "CONSUL_CLIENT_KEY": mine.key,
            "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
        }.items():
            monkeypatch.setenv(name, value)
        address = Address.from_environment()
        await led(address.url, address.tls)
        async with Registry(address) as registry:
            assert await registry.put("a", b"1")
            found = await registry.get("a")
            assert found
            assert found.data == b"1"

        monkeypatch.delenv("CONSUL_TLS_SERVER_NAME")
        assert "is for another name" in await unreachable(url, Tls.from_environment())
        monkeypatch.setenv("CONSUL_HTTP_SSL_VERIFY", "false")
        assert await leader(url, Tls.from_environment())
        monkeypatch.delenv("CONSUL_CLIENT_CERT")
        monkeypatch.delenv("CONSUL_CLIENT_KEY")
        assert "it wants a client's certificate" in await unreachable(url, Tls.from_environment())
        theirs = stranger.pair("me")
        other = Tls(ca_file=authority.file, cert=theirs.cert, key=theirs.key, server_name="server.dc1.consul")
        assert "does not take the certificate" in await unreachable(url, other)
