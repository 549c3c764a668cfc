"""Whose listener answers on a port: a probe alone cannot tell an instance from a stranger in its place.

Source: proc(5), /proc/net/tcp: local address and port in hexadecimal, the state (0A is LISTEN), the inode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"


def foreign(port: int, pids: Iterable[int]) -> bool:
    """Whether somebody listens on the port, and it is none of these processes.

    False when it cannot be known: nobody listens where this process can see it.
    """
    listeners = _listeners(port)
    return bool(listeners) and not any(listeners & _sockets(pid) for pid in pids)


def _listeners(port: int) -> set[str]:
    found = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (_PROC / table).read_text().splitlines()[1:]
        except OSError:
            continue  # a kernel without IPv6 has one table
        for line in lines:
            _, local, _, state, *rest = line.split()
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                found.add(f"socket:[{rest[5]}]")
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # the process ended meanwhile
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):  # this one was closed meanwhile
                found.add(str(descriptor.readlink()))
    return found
