"""A proxy's process that outlives the router: which one it is stands in a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from milkrun.host.process import Identity, identity
from milkrun.router import disk


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content. Former routers wrote `started` for `ticks`, and not of which boot."""

    pid: int
    ticks: int | None = None
    boot: str | None = None
    started: int | None = None


def remembered(file: Path) -> Identity | None:
    """The process that a router wrote down last, whether or not it still runs; None when nothing is known."""
    kept = disk.load(file, _Kept)
    if kept is None:
        return None
    if kept.ticks is not None and kept.boot is not None:
        return Identity(pid=kept.pid, ticks=kept.ticks, boot=kept.boot)
    now = identity(kept.pid)
    return now if now and now.ticks == kept.started else None
