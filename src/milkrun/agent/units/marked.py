"""Which processes an agent started: their environment says so, also when no record does."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from milkrun.host.process import Identity, identity

_PROC = Path("/proc")


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """A process whose environment names its instance. `leader`: it leads a session of its own."""

    identity: Identity
    instance: str
    leader: bool


def marked(state: str) -> list[Marked]:
    """The running processes that an agent with this state folder started, and their children."""
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        pid = int(folder.name)
        try:
            environment = (folder / "environ").read_bytes()
            leader = os.getsid(pid) == pid
        except OSError:
            continue  # gone meanwhile, or another user's
        values = dict(entry.partition(b"=")[::2] for entry in environment.split(b"\0"))
        if values.get(b"MILKRUN_STATE") != state.encode():
            continue
        if known := identity(pid):
            instance = values.get(b"MILKRUN_INSTANCE", b"").decode(errors="replace")
            found.append(Marked(identity=known, instance=instance, leader=leader))
    return found
