"""Where Envoys that are not the router's own may ask for their configuration: by TCP, when the operator says so.

The command line's `--ads` is kept in the router's folder, where the data plane finds it. Whoever may ask learns where
every instance is, so it is either this host's own programs, or whoever shows a certificate.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import host_port
from milkrun.router import disk

FILE = "ads.json"


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """The address; with TLS also the files of what is shown there, and of who signs the certificates of callers."""

    listen: tuple[str, int]
    certificate: str = ""
    key: str = ""
    authority: str = ""

    @property
    def tls(self) -> bool:
        """Whether callers have to show a certificate."""
        return bool(self.authority)


def outside(listen: str, certificate: str = "", key: str = "", authority: str = "") -> Outside:
    """The place as the command line says it. Raises InputRefused for one that is open to strangers."""
    place = host_port(listen)
    files = (certificate, key, authority)
    if any(files) and not all(files):
        raise InputRefused(
            "the discovery server needs its certificate, its key and the authority of its callers, or none of them",
            remedy="give --ads-cert, --ads-key and --ads-ca",
        )
    if not any(files) and not ipaddress.ip_address(place[0]).is_loopback:
        raise InputRefused(
            f"{listen} is reached from other hosts, where anybody could ask for the instances",
            remedy="give --ads-cert, --ads-key and --ads-ca, or an address such as 127.0.0.1:18000",
        )
    certificate, key, authority = (str(Path(file).absolute()) if file else "" for file in files)
    return Outside(listen=place, certificate=certificate, key=key, authority=authority)


def keep(folder: Path, place: Outside | None) -> None:
    """The router in the folder answers there from its next start on; with None, nowhere."""
    if place:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk.write(folder / FILE, msgspec.json.encode(place))
    else:
        (folder / FILE).unlink(missing_ok=True)


def kept(folder: Path) -> Outside | None:
    """What was kept last."""
    return disk.load(folder / FILE, Outside)
