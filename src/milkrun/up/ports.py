"""Whether the ports of an environment are free, and who has them when they are not."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

import msgspec

from milkrun.errors import PortTaken
from milkrun.host.listening import descriptors, listeners
from milkrun.model import host_port
from milkrun.settings.environment import Environment

_PROC = Path("/proc")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An address that a part will listen on, for datagrams too or not, and the setting that says so."""

    address: str
    setting: str
    datagrams: bool = False


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that listens; pid 0 when the system does not tell."""

    pid: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else "another program"


def wanted(environment: Environment) -> list[Wanted]:
    """All addresses that the environment's parts listen on; instances choose theirs among free ones."""
    return [
        Wanted(address=environment.registry.http, setting="http in [registry]"),
        *(
            Wanted(address=address, setting="dns in [registry]", datagrams=True)
            for address in (environment.registry.dns,)
            if address
        ),
        *(
            Wanted(address=address, setting=f"{field} in [routers.{name}]")
            for name, router in sorted(environment.routers.items())
            for field, address in (
                ("listen", router.listen),
                ("stats", router.stats),
                ("metrics", router.metrics),
            )
            if address
        ),
    ]


def check(environment: Environment, own: set[int], file: str) -> None:
    """Every address is free, or held by one of the processes `own`; else PortTaken is raised."""
    for one in wanted(environment):
        holder = taken(one.address) or (taken(one.address, socket.SOCK_DGRAM) if one.datagrams else None)
        if holder is not None and holder.pid not in own:
            end = f"stop {holder} if it need not run" if holder.pid else "stop that program"
            raise PortTaken(
                f"{one.address} is taken by {holder}",
                remedy=f"{end}, or change {one.setting} of {file} and commit",
            )


def taken(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> Holder | None:
    """Who listens on the address; None when a part could."""
    host, port = host_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        # For datagrams it would let two programs share the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind is socket.SOCK_STREAM))
        try:
            probe.bind((host, port))
        except OSError as error:
            # Any other trouble with the address is the part's to tell.
            return (_holder(port, kind) or Holder()) if error.errno == errno.EADDRINUSE else None
    return None


def _holder(port: int, kind: socket.SocketKind) -> Holder | None:
    found = listeners(port, kind)
    for process in _PROC.iterdir():
        if process.name.isdigit() and found & descriptors(int(process.name)):
            with contextlib.suppress(OSError):
                return Holder(pid=int(process.name), name=(process / "comm").read_text().strip())
    return None
