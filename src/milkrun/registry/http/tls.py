"""The certificate that the registry shows and who has to show one, read from files and read again when they change."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import InputRefused

LOOK_S = 2.0

_REASONS = {
    "KEY_VALUES_MISMATCH": "the private key is not that of the certificate in {cert}",
    "EE_KEY_TOO_SMALL": "the certificate's key is too short to be safe",
    "CA_MD_TOO_WEAK": "the certificate is signed with a hash that is no longer safe",
}


Stamp = tuple[tuple[int, ...], ...]


class TlsFiles(msgspec.Struct, frozen=True):
    """The files in PEM: the certificate with those between it and its root, its key, and whose clients may come.

    With a `ca` every client has to show a certificate that one of it has signed.
    """

    cert: Path
    key: Path
    ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """What servers are made with: TLS 1.2 or newer. Raises InputRefused, which names the file."""
        for path in (self.cert, self.key, self.ca):
            if path:
                _readable(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._show(context)
        if self.ca:
            try:
                context.load_verify_locations(cafile=self.ca)
            except ssl.SSLError as error:
                raise InputRefused("there is no certificate in it", file=str(self.ca), remedy=_PEM) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _show(self, context: ssl.SSLContext) -> None:
        def locked() -> str:  # else OpenSSL asks the terminal, and waits
            raise InputRefused(
                "the private key is encrypted, and nobody is there to type its password",
                file=str(self.key),
                remedy="take the password away: openssl pkey -in KEY -out NEW",
            )

        try:
            # Alone first: the certificate's faults and the key's have the same names.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=self.cert)
        except ssl.SSLError as error:
            raise InputRefused("there is no certificate in it", file=str(self.cert), remedy=_PEM) from error
        try:
            context.load_cert_chain(self.cert, self.key, password=locked)
        except ssl.SSLError as error:
            why = _REASONS.get(error.reason or "", "there is no private key in it")
            raise InputRefused(why.format(cert=self.cert), file=str(self.key), remedy=_PEM) from error

    def stamp(self) -> Stamp:
        """What differs after a file was written, replaced or pointed elsewhere."""
        return tuple(_stamp(path) for path in (self.cert, self.key, self.ca) if path)


_PEM = "the registry takes PEM files: --tls-cert, --tls-key and --tls-ca"


async def renewing(
    files: TlsFiles,
    seen: Stamp,
    meet: Callable[[ssl.SSLContext], Awaitable[None]],
    *,
    look_s: float = LOOK_S,
) -> None:
    """Never returns: who connects is met with what the files hold now, while they hold something that works.

    `seen` is their stamp from before the context was made that is in use at first.
    """
    log = structlog.get_logger("registry")
    while True:
        await asyncio.sleep(look_s)
        now = files.stamp()
        if now == seen:
            continue
        seen = now
        try:
            context = files.context()
        except InputRefused as error:
            log.warning("the new certificate is not taken; the old one stays", reason=error.message)
        else:
            await meet(context)
            log.info("new connections get the new certificate", file=str(files.cert))


def _readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputRefused(
            f"it cannot be read: {(error.strerror or 'no reason given').lower()}",
            file=str(path),
            remedy="name a file that this user may read",
        ) from error


def _stamp(path: Path) -> tuple[int, ...]:
    with contextlib.suppress(OSError):
        found = path.stat()
        return (found.st_mtime_ns, found.st_size, found.st_ino)
    return ()
