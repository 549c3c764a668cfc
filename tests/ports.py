"""Ports for what a test starts: below the range that outgoing connections take theirs from."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 12_000, 32_000
_GIVEN: set[int] = set()
"""Those of this run: two who ask one after the other, before either listens, get different ones."""


def free_ports(count: int) -> list[int]:
    """Different ports on loopback that nobody listens on now, and that nobody in this run was given."""
    if len(_GIVEN) > (_LAST - _FIRST) // 2:
        _GIVEN.clear()
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(_FIRST, _LAST)
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _GIVEN.add(port)
        found.append(port)
    return found


def free_port() -> int:
    return free_ports(1)[0]
