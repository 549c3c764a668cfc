"""Which sockets listen on a port, and which a process has open.

Source: proc(5), /proc/net/tcp and udp: local address and port in hexadecimal, the state (0A is LISTEN, 07 a UDP socket
that is not connected), the inode.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

_PROC = Path("/proc")
_TABLES = {socket.SOCK_STREAM: ("tcp", "0A"), socket.SOCK_DGRAM: ("udp", "07")}


def listeners(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> set[str]:
    """The sockets that listen on the port at any address, as a process's descriptors name them."""
    table, listens = _TABLES[kind]
    found = set()
    for each in (f"net/{table}", f"net/{table}6"):
        with contextlib.suppress(OSError):  # a kernel without IPv6 has one table
            for row in (_PROC / each).read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == listens and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def descriptors(pid: int) -> set[str]:
    """What the process has open; nothing when it has ended, or is another user's."""
    found = set()
    with contextlib.suppress(OSError):  # the process ended meanwhile
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):  # this one was closed meanwhile
                found.add(str(descriptor.readlink()))
    return found
