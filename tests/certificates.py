"""Certificates for tests: an authority and what it has signed, as files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trustme
from cryptography.hazmat.primitives import serialization

from milkrun.registry.http.tls import TlsFiles


class Pair(msgspec.Struct, frozen=True):
    """A certificate with its key."""

    cert: str
    key: str

    def shown(self, ca: str = "") -> TlsFiles:
        """What a registry shows with this pair, and (with `ca`) whose clients it takes."""
        return TlsFiles(Path(self.cert), Path(self.key), Path(ca) if ca else None)


class Authority:
    """Signs certificates; `file` is its own."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._ca = trustme.CA()
        self._count = 0
        self.file = str(folder / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def pair(self, *names: str, expired: bool = False) -> Pair:
        """A new certificate for these names or addresses."""
        until = datetime(2001, 1, 1, tzinfo=UTC) if expired else None
        since = datetime(2000, 1, 1, tzinfo=UTC) if expired else None
        made = self._ca.issue_cert(*names, not_after=until, not_before=since)
        self._count += 1
        found = (
            self._folder / f"{self._name}-{self._count}.pem",
            self._folder / f"{self._name}-{self._count}.key",
        )
        found[0].write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        found[1].write_bytes(made.private_key_pem.bytes())
        return Pair(str(found[0]), str(found[1]))


def encrypted(key: str) -> str:
    """The same key in another file, behind a password."""
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    locked = Path(f"{key}.locked")
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return str(locked)
