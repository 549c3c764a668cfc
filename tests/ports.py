"""Ports for what a test starts: below the range that outgoing connections take theirs from."""

from __future__ import annotations

import random
import socket


def free_ports(count: int) -> list[int]:
    """Different ports on loopback that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def free_port() -> int:
    return free_ports(1)[0]
