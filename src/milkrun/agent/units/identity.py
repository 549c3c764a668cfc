"""Which process a number means: a pid alone can be another program's by now.

The kernel's start time (in clock ticks since boot) beside the pid, and the boot's id, name one process.
Source: proc(5), /proc/<pid>/stat fields 3, 6 and 22.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

_PROC = Path("/proc")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One process of one boot of this host."""

    pid: int
    ticks: int
    boot: str


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """A process whose environment names its instance. `leader`: it leads a session of its own."""

    identity: Identity
    instance: str
    leader: bool


def identity(pid: int) -> Identity | None:
    """The identity of the running process with this pid; None when there is none, or only its remains."""
    stat = _stat(pid)
    return stat[0] if stat else None


def marked(state: str) -> list[Marked]:
    """The running processes that an agent with this state folder started, and their children."""
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or another user's
        values = dict(entry.partition(b"=")[::2] for entry in environment.split(b"\0"))
        if values.get(b"MILKRUN_STATE") != state.encode():
            continue
        if stat := _stat(int(folder.name)):
            instance = values.get(b"MILKRUN_INSTANCE", b"").decode(errors="replace")
            found.append(Marked(identity=stat[0], instance=instance, leader=stat[1]))
    return found


def _stat(pid: int) -> tuple[Identity, bool] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The program's name stands in parentheses and may hold any character: count from the last one.
    state, *fields = text.rpartition(")")[2].split()
    if state in ("Z", "X"):
        return None
    return Identity(pid=pid, ticks=int(fields[18]), boot=boot), int(fields[2]) == pid
