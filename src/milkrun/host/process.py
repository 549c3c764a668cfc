"""Which process a number means: a pid alone can be another program's by now.

The kernel's start time (in clock ticks since boot) beside the pid, and the boot's id, name one process.
Source: proc(5), /proc/<pid>/stat fields 2, 3 and 22.
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


def identity(pid: int) -> Identity | None:
    """The identity of the running process with this pid; None when there is none, or only its remains.

    None too when /proc cannot be read now: who is about to signal it must be sure which process it is.
    """
    try:
        return _found(pid)
    except OSError:
        return None


def runs(known: Identity) -> bool:
    """Whether this very process still runs. One that cannot be looked at now (EMFILE) has not ended."""
    try:
        return _found(known.pid) == known
    except OSError:
        return True


def ticks(stat: str) -> int | None:
    """When the process with this line in /proc started; None when only its remains are left."""
    # The program's name stands in parentheses and may hold any character: count from the last one.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(fields[18])


def _found(pid: int) -> Identity | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    started = ticks(stat)
    return None if started is None else Identity(pid=pid, ticks=started, boot=boot)
