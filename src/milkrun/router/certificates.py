"""A router's certificates: the good ones of a folder, copied, so that a bad one there changes nothing that serves.

A file is good when a client that trusts it alone could be served with it, whatever the time: so its key fits, needs
no password, and it may be shown by a server. The copies are named by what is in them and only their owner reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import time
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import InputRefused
from milkrun.router import disk

BYTES_AT_MOST = 256 * 1024
FILES_AT_MOST = 1000
SOON_S, VERY_SOON_S, NOW_S = 30 * 86_400.0, 7 * 86_400.0, 86_400.0
_WHATEVER_THE_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
_ROUND_TRIPS = 6
_SIGNS = (
    (b"-----BEGIN CERTIFICATE-----", False, "it has no certificate in PEM"),
    (b"PRIVATE KEY-----", False, "it has no key: certificate and key belong into one file"),
    (b"ENCRYPTED", True, "its key has a password"),
)
"""What has to be in a file, or not, and what is said otherwise: OpenSSL calls all of it `PEM lib`."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the folder as it was last good. `until` is when it expires, in seconds since 1970."""

    name: str
    digest: str
    until: float


class Certificates:
    """Those of `source`, with copies in `folder`. `good` is in the order of their names."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._index = folder.with_suffix(".json")
        self.good = tuple(disk.load(self._index, list[Certificate]) or ())
        self.troubles: list[str] = []
        self._seen: object = None

    async def look(self) -> bool:
        """Whether others are good now than before. What the folder has no more goes, unless nothing is left."""
        return self._taken(await asyncio.to_thread(self._read))

    def look_first(self) -> None:
        """As `look`. Raises InputRefused when there is none to listen with."""
        self._taken(self._read())
        if not self.good:
            raise InputRefused(
                "; ".join(self.troubles),
                remedy=f"put NAME.pem, a certificate with its key, into {self._source}",
            )

    def tidy(self, used: Collection[str]) -> None:
        """The copies that are neither good nor used are gone."""
        kept = {*used, *(one.digest for one in self.good)}
        for path in self._folder.glob("*.pem"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def alarms(self, now: float) -> list[str]:
        """What a person should know of them at this time."""
        return [*self.troubles, *expiring(self.good, now)]

    def _read(self) -> dict[str, bytes | str] | None:
        """Each file's content, or why it has none that can be used; None when nothing changed."""
        try:
            paths = sorted(path for path in self._source.iterdir() if path.suffix == ".pem")
            seen = [(path.name, *_signature(path)) for path in paths]
        except OSError as error:
            seen, paths = [("", error.errno or 0, 0, 0)], []
        if seen == self._seen:
            return None
        self._seen = seen
        found: dict[str, bytes | str] = {}
        for path in paths[:FILES_AT_MOST]:
            try:
                found[path.name] = _content(path)
            except OSError as error:
                found[path.name] = str(error.strerror)
        return found

    def _taken(self, found: dict[str, bytes | str] | None) -> bool:
        if found is None:
            return False
        before = {one.name: one for one in self.good}
        good: list[Certificate] = []
        troubles: list[str] = []
        for name, data in found.items():
            try:
                good.append(self._kept(name, data, before.get(name)))
            except InputRefused as refusal:
                stays = "; the one before it stays" if name in before else ""
                troubles.append(f"certificate {name[:80]!r} is refused: {refusal.reason}{stays}")
                good += [before[name]] if name in before else []
        if not good:
            stay = "; those of before stay" if before else ""
            troubles.append(f"there is no certificate in {self._source}{stay}")
            good = list(self.good)
        if troubles != self.troubles:
            self.troubles = troubles
            for trouble in troubles:
                structlog.get_logger("router").error(trouble)
        changed = tuple(good) != self.good
        if changed:
            disk.write(self._index, msgspec.json.encode(good))
            self.good = tuple(good)
        return changed

    def _kept(self, name: str, data: bytes | str, before: Certificate | None) -> Certificate:
        if isinstance(data, str):
            raise InputRefused(data)
        digest = sha256(data).hexdigest()
        if before and before.digest == digest:
            return before
        until = judged(data)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        disk.write(self._folder / f"{digest}.pem", data)
        return Certificate(name=name, digest=digest, until=until)


def judged(data: bytes) -> float:
    """When the certificate expires that the PEM text holds with its key; raises InputRefused when it is not good."""
    if len(data) > BYTES_AT_MOST:
        raise InputRefused(f"it has more than {BYTES_AT_MOST} bytes")
    for sign, wrong, why in _SIGNS:
        if (sign in data) == wrong:
            raise InputRefused(why)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _WHATEVER_THE_TIME)
    try:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # mode 0600; `ssl` reads files only
            file.write(data)
            file.flush()
            server.load_cert_chain(file.name, password=lambda: "")
            client.load_verify_locations(file.name)
        shown = _shown(client, server)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise InputRefused("its key is not the certificate's") from error
        raise InputRefused(f"it cannot be read or served ({(reason or str(error))[:200]})") from error
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _shown(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, object]:
    """What a client is shown, in a handshake with nobody between."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_ROUND_TRIPS):
        for end in (asking, answering):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return dict(asking.getpeercert() or {})


def expiring(certificates: Iterable[Certificate], now: float) -> list[str]:
    """The alarms of those that expire within 30 days, more urgent within 7 and within one."""
    found = []
    for one in sorted(certificates, key=lambda one: one.until):
        left = one.until - now
        day = time.strftime("%Y-%m-%d", time.gmtime(one.until))
        if left <= 0:
            found.append(f"certificate {one.name[:80]!r} expired on {day}: clients refuse it")
        elif left <= NOW_S:
            found.append(f"certificate {one.name[:80]!r} expires within a day ({day}): renew it now")
        elif left <= VERY_SOON_S:
            found.append(f"certificate {one.name[:80]!r} expires within 7 days ({day}): renew it soon")
        elif left <= SOON_S:
            found.append(f"certificate {one.name[:80]!r} expires within 30 days ({day})")
    return found


def _content(path: Path) -> bytes:
    if not path.is_file():  # a pipe would wait for its writer
        raise FileNotFoundError(0, "it is no file")
    with path.open("rb") as file:
        return file.read(BYTES_AT_MOST + 1)


def _signature(path: Path) -> tuple[int, int, int]:
    """Changes when the file's content does; a link is followed, as certificate tools make them."""
    try:
        found = path.stat()
    except OSError as error:
        return error.errno or 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
