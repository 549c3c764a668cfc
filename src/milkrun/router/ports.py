"""Which ports a proxy may have: one that another program listens on is refused before both share it."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from milkrun.errors import PortTaken


def refuse_taken(host: str, port: int) -> None:
    """Raises PortTaken when somebody listens there: the proxy itself would share the port and serve half."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port}: {error.strerror}",
                remedy=f"see who has it with `ss -ltnp 'sport = :{port}'`, or change the router in milkrun.toml",
            ) from error


def in_the_way(name: str, wanted: Iterable[tuple[str, int]], has: Iterable[tuple[str, int]]) -> str:
    """Why the proxy of this name cannot take over the addresses from those it has; empty when it can."""
    ours = {port for _, port in has}
    for host, port in wanted:
        if port not in ours:
            try:
                refuse_taken(host, port)
            except PortTaken as error:
                return f"{error.message}; {name} goes on at its former addresses"
    return ""
