"""TLS at a router: what clients see, and what becomes of certificates that change, go, or are bad."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import time
from pathlib import Path

import msgspec
import pytest
from certificates import Authority, encrypted

from milkrun.errors import InputRefused
from milkrun.router.certificates import Certificate, Certificates, expiring, judged
from milkrun.settings.service import TrafficSettings

DAY_S = 86_400.0


@pytest.fixture
def authority(tmp_path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


@pytest.fixture
def folder(tmp_path) -> Path:
    found = tmp_path / "certificates"
    found.mkdir()
    return found


def put(folder: Path, name: str, pair) -> None:
    """The certificate with its key is in the folder from one moment to the next."""
    draft = folder / f".{name}"
    draft.write_bytes(Path(pair.cert).read_bytes() + Path(pair.key).read_bytes())
    draft.replace(folder / name)


@pytest.fixture
async def site(stand, instance, folder, authority, tmp_path):
    """A load balancer by TLS, with the certificate of shop.example in its folder."""
    put(folder, "shop.pem", authority.pair("shop.example"))
    found = stand({"goat": TrafficSettings()}, service="goat", certificates=str(folder))
    found.certificates = Certificates(folder, found.folder / "certificates")
    found.certificates.look_first()
    found.plane()
    await found.start(goat=[("goat", (await instance("goat")).port)])
    return found


def trusting(authority: Authority, alpn: str = "http/1.1") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    context.set_alpn_protocols([alpn])
    return context


class Shown(msgspec.Struct):
    serial: str
    names: set[str]
    alpn: str | None
    version: str | None
    body: str


async def ask(site, context: ssl.SSLContext, name: str) -> Shown:
    """One request by TLS to that name, and what the server showed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=context, server_hostname=name)
    secured = writer.get_extra_info("ssl_object")
    if secured.selected_alpn_protocol() != "h2":
        writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        body = (await asyncio.wait_for(reader.read(), 20)).decode()
    else:
        body = ""
    writer.close()
    shown = secured.getpeercert()
    return Shown(
        serial=shown["serialNumber"],
        names={value for _, value in shown["subjectAltName"]},
        alpn=secured.selected_alpn_protocol(),
        version=secured.version(),
        body=body,
    )


async def renewed(site) -> None:
    """What the router's loop does when it looks at the folder."""
    if await site.certificates.look():
        await site.proxy.start(site.wanted)


async def test_a_client_sees_the_certificate_and_the_instance_who_called_and_how(site, authority):
    found = await ask(site, trusting(authority), "shop.example")

    assert found.names == {"shop.example"}
    assert (found.alpn, found.version) == ("http/1.1", "TLSv1.3")
    assert '"x-forwarded-proto":["https"]' in found.body
    assert (await ask(site, trusting(authority, "h2"), "shop.example")).alpn == "h2"
    assert (await site.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] in {0, 400}, "nothing is served in clear"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_an_old_version_of_tls_is_refused(site, authority):
    context = trusting(authority)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await ask(site, context, "shop.example")


class Callers:
    """Clients by TLS that ask again and again while certificates change."""

    def __init__(self, site, context: ssl.SSLContext, name: str) -> None:
        self._site, self._context, self._name = site, context, name
        self.stop = asyncio.Event()
        self.serials: list[str] = []

    async def one_shot(self) -> None:
        while not self.stop.is_set():
            found = await ask(self._site, self._context, self._name)
            assert found.body.startswith("HTTP/1.1 200")
            self.serials.append(found.serial)

    async def keep_alive(self) -> None:
        reader = writer = None
        while not self.stop.is_set():
            if writer is None:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._site.port, ssl=self._context, server_hostname=self._name
                )
            writer.write(f"GET / HTTP/1.1\r\nHost: {self._name}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200")
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
            if b"connection: close" in head:
                writer.close()
                writer = None
            await asyncio.sleep(0.002)
        if writer:
            writer.close()

    async def saw(self, count: int) -> None:
        """So many different certificates were shown."""
        async with asyncio.timeout(20):
            while len(set(self.serials)) < count:
                await asyncio.sleep(0.005)


async def test_a_renewed_certificate_is_taken_over_and_no_request_fails(site, authority, folder):
    callers = Callers(site, trusting(authority), "shop.example")
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(callers.one_shot())
            tasks.create_task(callers.keep_alive())
        await callers.saw(1)
        for count in (2, 3, 4):
            put(folder, "shop.pem", authority.pair("shop.example"))
            await renewed(site)
            await callers.saw(count)
        callers.stop.set()

    assert len(set(callers.serials)) == 4
    assert site.proxy.reloads == 3
    kept = [path.stem for path in (site.folder / "certificates").iterdir()]
    assert kept == [one.digest for one in site.certificates.good], "the former ones are gone with their keys"


async def test_a_name_that_is_added_is_served_and_one_that_is_removed_is_not(site, authority, folder):
    put(folder, "milk.pem", authority.pair("milk.example"))
    await renewed(site)

    assert (await ask(site, trusting(authority), "milk.example")).names == {"milk.example"}
    assert (await ask(site, trusting(authority), "shop.example")).names == {"shop.example"}

    (folder / "milk.pem").unlink()
    await renewed(site)

    with pytest.raises(ssl.SSLCertVerificationError):
        await ask(site, trusting(authority), "milk.example")
    assert (await ask(site, trusting(authority), "shop.example")).names == {"shop.example"}


BAD = {
    "no key": lambda good, other, key: Path(good.cert).read_bytes(),
    "another's key": lambda good, other, key: Path(good.cert).read_bytes() + Path(other.key).read_bytes(),
    "half of it": lambda good, other, key: (Path(good.cert).read_bytes() + Path(good.key).read_bytes())[:300],
    "a password": lambda good, other, key: Path(good.cert).read_bytes() + Path(key).read_bytes(),
    "nothing": lambda good, other, key: b"",
    "noise": lambda good, other, key: bytes(range(256)) * 8,
    "no certificate inside": lambda good, other, key: (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + Path(good.key).read_bytes()
    ),
    "torn in the key": lambda good, other, key: (Path(good.cert).read_bytes() + Path(good.key).read_bytes())[
        :-60
    ],
    "too much": lambda good, other, key: b"#" * (256 * 1024 + 1),
}


WHY = {
    "no key": "it has no key: certificate and key belong into one file",
    "another's key": "its key is not the certificate's",
    "half of it": "it has no key",
    "a password": "its key has a password",
    "nothing": "it has no certificate in PEM",
    "noise": "it has no certificate in PEM",
    "too much": "it has more than 262144 bytes",
    "no certificate inside": "it cannot be read or served",
    "torn in the key": "it cannot be read or served",
}


@pytest.mark.parametrize("kind", WHY)
async def test_a_bad_one_is_refused_and_the_one_before_it_stays(site, authority, folder, kind):
    before = await ask(site, trusting(authority), "shop.example")
    good = authority.pair("shop.example")
    (folder / "shop.pem").write_bytes(BAD[kind](good, authority.pair("other.example"), encrypted(good.key)))
    put(folder, "milk.pem", authority.pair("milk.example"))

    await renewed(site)

    assert (await ask(site, trusting(authority), "shop.example")).serial == before.serial
    assert (await ask(site, trusting(authority), "milk.example")).names == {"milk.example"}
    (alarm,) = site.certificates.alarms(time.time())
    assert f"'shop.pem' is refused: {WHY[kind]}" in alarm
    assert alarm.endswith("; the one before it stays")

    put(folder, "shop.pem", good)
    await renewed(site)

    assert (await ask(site, trusting(authority), "shop.example")).serial != before.serial
    assert not [alarm for alarm in site.certificates.alarms(time.time()) if "refused" in alarm]


@pytest.mark.parametrize("how", ["emptied", "gone"])
async def test_a_folder_that_lost_everything_changes_nothing_also_over_a_restart(
    site, authority, folder, how
):
    before = await ask(site, trusting(authority), "shop.example")
    (folder / "shop.pem").unlink()
    if how == "gone":
        shutil.rmtree(folder)

    await renewed(site)

    assert (await ask(site, trusting(authority), "shop.example")).serial == before.serial
    await site.proxy.stop()
    site.certificates = Certificates(folder, site.folder / "certificates")
    site.certificates.look_first()
    site.plane()
    await site.proxy.start(site.wanted)
    assert (await ask(site, trusting(authority), "shop.example")).serial == before.serial
    assert "there is no certificate in" in site.certificates.alarms(time.time())[0]


def test_without_any_certificate_a_router_that_never_had_one_does_not_listen(folder, tmp_path):
    with pytest.raises(InputRefused, match="there is no certificate in"):
        Certificates(folder, tmp_path / "kept").look_first()


async def test_a_folder_that_did_not_change_is_not_read_again(folder, authority, tmp_path, monkeypatch):
    put(folder, "a.pem", authority.pair("a.example"))
    found = Certificates(folder, tmp_path / "kept")
    assert await found.look()
    monkeypatch.setattr(Path, "open", None)

    assert not await found.look()
    assert not found.troubles


def test_nobody_else_may_read_the_copies(folder, authority, tmp_path):
    put(folder, "a.pem", authority.pair("a.example"))

    Certificates(folder, tmp_path / "kept").look_first()

    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "kept").rglob("*")] == [0]
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0


async def test_a_reading_that_fails_for_one_file_costs_only_that_file(folder, authority, tmp_path):
    put(folder, "good.pem", authority.pair("a.example"))
    (folder / "gone.pem").symlink_to(folder / "nowhere")
    (folder / "dir.pem").mkdir()
    os.mkfifo(folder / "fifo.pem")
    (folder / "notes.txt").write_text("no certificate")
    found = Certificates(folder, tmp_path / "kept")

    async with asyncio.timeout(10):
        assert await found.look()

    assert [one.name for one in found.good] == ["good.pem"]
    assert len(found.troubles) == 3


def test_one_that_has_expired_is_served_with_an_alarm(authority):
    pair = authority.pair("old.example", expired=True)

    until = judged(Path(pair.cert).read_bytes() + Path(pair.key).read_bytes())

    assert until == 978_307_200.0
    assert expiring([Certificate(name="old.pem", digest="", until=until)], time.time()) == [
        "certificate 'old.pem' expired on 2001-01-01: clients refuse it"
    ]


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (31 * DAY_S, None),
        (30 * DAY_S, "expires within 30 days"),
        (7 * DAY_S, "expires within 7 days"),
        (DAY_S, "expires within a day"),
        (1.0, "expires within a day"),
        (0.0, "expired on"),
    ],
)
def test_the_alarm_grows_at_30_7_and_1_days_before_the_end(left_s, said):
    alarms = expiring([Certificate(name="a.pem", digest="", until=1_000_000_000.0)], 1_000_000_000.0 - left_s)

    assert [said in alarm for alarm in alarms] == ([True] if said else [])
