"""TLS at Envoy: what clients see, and what becomes of certificates that change, go, or are bad."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest
from certificates import Authority

from milkrun.errors import DataPlaneError
from milkrun.router.certificates import Certificates
from milkrun.router.diff import diff
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, asked, converge, of


@pytest.fixture
def authority(tmp_path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


def put(folder: Path, name: str, pair) -> None:
    """The certificate with its key is in the folder from one moment to the next."""
    draft = folder / f".{name}"
    draft.write_bytes(Path(pair.cert).read_bytes() + Path(pair.key).read_bytes())
    draft.replace(folder / name)


class Site:
    """A load balancer by TLS, with the certificate of shop.example in its folder."""

    def __init__(self, stand, source: Path, authority: Authority) -> None:
        self.stand, self.source, self.authority = stand, source, authority
        self.copies = stand.folder / "certificates"
        self.known = Certificates(source, self.copies)
        stand.front = msgspec.structs.replace(stand.front, certificates=str(source))

    async def renewed(self, wanted) -> None:
        """What the router's loop does when it looks at the folder."""
        if await self.known.look():
            await self.stand.envoys[-1].start({GOAT: wanted})

    def trusting(self, alpn: str = "http/1.1") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.file)
        context.set_alpn_protocols([alpn])
        return context

    async def shown(
        self, name: str, context: ssl.SSLContext | None = None
    ) -> tuple[str, str | None, str | None]:
        """The serial number of the certificate, the protocol, and the version of TLS."""
        _, writer = await asyncio.open_connection(
            *self.stand.front.listen, ssl=context or self.trusting(), server_hostname=name
        )
        found = writer.get_extra_info("ssl_object")
        writer.close()
        return found.getpeercert()["serialNumber"], found.selected_alpn_protocol(), found.version()

    async def serial(self, name: str) -> str:
        return (await self.shown(name))[0]


@pytest.fixture
async def site(stand, apps, authority, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    put(source, "shop.pem", authority.pair("shop.example", "127.0.0.1"))
    found = Site(stand, source, authority)
    found.known.look_first()
    await stand.start(of(apps["a1"]))
    return found


async def test_a_client_sees_the_certificate_and_the_instance_who_called_and_how(site, stand):
    _, alpn, version = await site.shown("shop.example")
    assert (alpn, version) == ("http/1.1", "TLSv1.3")
    assert (await site.shown("shop.example", site.trusting("h2")))[1] == "h2"
    url = stand.url.replace("http", "https")
    connector = aiohttp.TCPConnector(ssl=site.trusting())
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        seen = (await answer.json())["all"]
    theirs = {name.lower(): value for name, value in seen.items()}
    assert (theirs["x-forwarded-proto"], theirs["x-forwarded-for"]) == ("https", "127.0.0.1")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await asked(session, stand.url, "/")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_an_old_version_of_tls_is_refused(site):
    context = site.trusting()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await site.shown("shop.example", context)


async def test_a_renewed_certificate_is_taken_over_and_no_request_fails(site, stand, apps):
    url, failed, done = stand.url.replace("http", "https"), [], asyncio.Event()
    serials = {await site.serial("shop.example")}

    async def caller(*, keep: bool) -> None:
        connector = aiohttp.TCPConnector(ssl=site.trusting(), force_close=not keep)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not done.is_set():
                try:
                    if (answer := await asked(session, url, "/"))[0] != 200:
                        failed.append(answer)
                except aiohttp.ClientError as error:
                    failed.append(repr(error))

    async with asyncio.TaskGroup() as tasks:
        for keep in (True, True, False, False):
            tasks.create_task(caller(keep=keep))
        for _ in range(3):
            put(site.source, "shop.pem", site.authority.pair("shop.example", "127.0.0.1"))
            await site.renewed(of(apps["a1"]))
            serials.add(await site.serial("shop.example"))
            seen = len(apps["a1"].asked)
            while len(apps["a1"].asked) < seen + 20:
                await asyncio.sleep(0.005)
        done.set()

    assert (failed, len(serials), stand.envoys[-1].behind) == ([], 4, "")
    kept = [path.stem for path in site.copies.iterdir()]
    assert kept == [one.digest for one in site.known.good], "the former ones are gone with their keys"


async def test_a_name_that_is_added_is_served_and_one_that_is_removed_is_not(site, apps):
    first = await site.serial("shop.example")
    put(site.source, "milk.pem", site.authority.pair("milk.example"))
    await site.renewed(of(apps["a1"]))

    assert await site.serial("milk.example") != first
    assert await site.serial("shop.example") == first

    (site.source / "milk.pem").unlink()
    await site.renewed(of(apps["a1"]))

    with pytest.raises(ssl.SSLCertVerificationError):
        await site.serial("milk.example")
    assert await site.serial("shop.example") == first


async def test_a_bad_file_changes_nothing_and_weights_go_on(site, stand, apps):
    first = await site.serial("shop.example")
    (site.source / "shop.pem").write_bytes(b"no certificate")

    await site.renewed(of(apps["a1"]))
    await converge(stand.envoys[-1], of(apps["a2"]))

    assert await site.serial("shop.example") == first
    assert "the one before it stays" in site.known.alarms(time.time())[0]
    assert diff(await stand.envoys[-1].of(GOAT).observe(), of(apps["a2"])) == []


async def test_a_copy_that_envoy_refuses_leaves_the_former_one(site, stand, apps):
    """Envoy may be pickier than OpenSSL."""
    first = await site.serial("shop.example")
    put(site.source, "shop.pem", site.authority.pair("shop.example"))
    assert await site.known.look()
    (site.copies / f"{site.known.good[0].digest}.pem").write_bytes(b"damaged")

    await stand.envoys[-1].start({GOAT: of(apps["a1"])})

    assert "Envoy refuses its listeners" in stand.envoys[-1].behind
    assert await site.serial("shop.example") == first
    await converge(stand.envoys[-1], of(apps["a2"]))


async def test_certificates_outlive_the_router_and_envoy(site, stand, apps):
    first = await site.serial("shop.example")
    os.kill(msgspec.json.decode((stand.folder / "envoy.process.json").read_bytes())["pid"], signal.SIGKILL)
    while await stand.envoys[-1].alive():
        await asyncio.sleep(0.01)
    await stand.envoys[-1].start({GOAT: of(apps["a1"])})
    assert await site.serial("shop.example") == first
    await stand.start(of(apps["a1"]))
    assert await site.serial("shop.example") == first


async def test_a_tcp_service_is_behind_tls_too(site, stand, apps):
    front = msgspec.structs.replace(stand.front, services={GOAT: TrafficSettings(protocol="tcp")})
    await stand.start(of(apps["a1"]), front)
    assert (await site.shown("shop.example"))[1] is None
    connector = aiohttp.TCPConnector(ssl=site.trusting())
    async with aiohttp.ClientSession(connector=connector) as session:
        assert (await asked(session, stand.url.replace("http", "https"), "/"))[1] == "a1"


async def test_without_a_certificate_nothing_is_served_in_clear(stand, apps):
    front = msgspec.structs.replace(stand.front, certificates="tls")
    with pytest.raises(DataPlaneError, match="no certificate to listen with"):
        await stand.start(of(apps["a1"]), front)
    with pytest.raises(OSError):
        await asyncio.open_connection(*front.listen)


async def test_no_key_is_in_what_envoy_shows(site, stand):
    dump = await stand.envoys[-1]._process.admin.get("/config_dump")
    assert b"PRIVATE KEY" not in dump
