"""Watches a branch: each new tip as soon as it is there, and what keeps us from seeing it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from milkrun.errors import MilkrunError
from milkrun.repository.mirror import Mirror
from milkrun.repository.quick import QuickReader
from milkrun.repository.reading import Repository, Tip

LOOK_S = 0.02
ASK_S = 2.0

_Signature: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Sight(msgspec.Struct, frozen=True):
    """What is seen of a branch: its tip (the last one known while there is trouble), and the trouble."""

    tip: Tip | None
    trouble: str = ""


async def local_tips(reader: QuickReader, branch: str) -> AsyncIterator[Sight]:
    """Each new sight of a branch of a repository on this machine. Never ends.

    Looks every 20 ms at the files that git replaces when it moves a branch, and asks when one of them changed.
    Every 2 s, and after trouble, it asks a new git process: the open ones cannot see that the whole folder was
    put in place of another.
    """
    loop = asyncio.get_running_loop()
    sight: Sight | None = None
    signature: _Signature = ()
    asked = -ASK_S
    while True:
        seen = _signature(reader.repository.common_dir, branch)
        due = loop.time() - asked >= ASK_S
        if seen != signature or due:
            signature = seen
            careful = due or sight is None or bool(sight.trouble)
            if careful:
                asked = loop.time()
            new = await _look(reader.repository if careful else reader, branch, sight)
            if careful and new != sight:
                await reader.close()
            if new != sight:
                sight = new
                yield new
        await asyncio.sleep(LOOK_S)


async def mirrored_tips(mirror: Mirror, poll_s: float) -> AsyncIterator[Sight]:
    """Each new sight of a remote branch, fetched about every `poll_s` seconds. Never ends."""
    sight: Sight | None = None
    while True:
        try:
            new = Sight(await mirror.fetch())
        except MilkrunError as error:
            new = Sight(await mirror.last(), trouble=error.message)
        if new != sight:
            sight = new
            yield new
        await asyncio.sleep(poll_s * (0.75 + random.random() / 2))


async def _look(source: Repository | QuickReader, branch: str, last: Sight | None) -> Sight:
    try:
        return Sight(await source.tip(branch))
    except MilkrunError as error:
        folder = (source.repository if isinstance(source, QuickReader) else source).folder
        trouble = f"the folder {folder} is gone" if _stat(folder) is None else error.message
        return Sight(last.tip if last else None, trouble=trouble)


def _signature(common_dir: Path, branch: str) -> _Signature:
    """Changes whenever the branch moves: its own file, the packed ones, or newer repositories' table."""
    names = (f"refs/heads/{branch}", "packed-refs", "reftable/tables.list")
    return tuple(_stat(common_dir / name) for name in names)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
