"""The router's own files that Envoy reads: the copies of its certificates, and the key of testers' cookies."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

import msgspec

from milkrun.router import disk, override_key
from milkrun.router.certificates import Certificates
from milkrun.router.envoy.secrets import Secrets
from milkrun.router.front import Front

FILE = "override.json"


class Files:
    """Those in the router's folder, where `Certificates` keeps its copies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "certificates"
        self._key_file = override_file(folder)
        self._key = b""

    def certificates(self) -> tuple[str, ...]:
        """The copies that are good now, by their names."""
        return tuple(one.digest for one in self._known().good)

    def tidy(self, used: Collection[str]) -> None:
        """The copies that are neither good nor used are gone."""
        self._known().tidy(used)

    def secrets(self, front: Front, certificates: Collection[str]) -> Secrets:
        """What Envoy reads to stand there. Raises InputRefused for a bad file of the key."""
        testers = any(traffic.override == "cookie" for traffic in front.services.values())
        if testers and not self._key:  # once: a file that goes bad later costs nobody a change of weights
            self._key = override_key.key_at(self._key_file)
        key = self._key if testers else b""
        return Secrets(
            certificates=tuple(str(self._folder.absolute() / f"{name}.pem") for name in certificates),
            override_key=str(self._key_file.absolute()) if key else "",
            override_sign=sha256(b"milkrun envoy" + key).hexdigest()[:16] if key else "",
        )

    def _known(self) -> Certificates:
        return Certificates(self._folder, self._folder)


def keep(folder: Path, file: Path | None) -> None:
    """The router in the folder takes the key of testers' cookies from this file from its next start on; with None,
    from its own folder.
    """
    if file:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk.write(folder / FILE, msgspec.json.encode(str(file.absolute())))
    else:
        (folder / FILE).unlink(missing_ok=True)


def override_file(folder: Path) -> Path:
    """The key's file."""
    return Path(disk.load(folder / FILE, str) or folder / override_key.NAME)
