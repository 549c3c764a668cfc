"""Whose listener answers on a port: a probe alone cannot tell an instance from a stranger in its place."""

from __future__ import annotations

from collections.abc import Iterable

from milkrun.host.listening import descriptors, listeners


def foreign(port: int, pids: Iterable[int]) -> bool:
    """Whether somebody listens on the port, and it is none of these processes.

    False when it cannot be known: nobody listens where this process can see it.
    """
    found = listeners(port)
    return bool(found) and not any(found & descriptors(pid) for pid in pids)
