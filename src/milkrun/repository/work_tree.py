"""Lets a work tree follow a commit of one file: its index entry and the file on disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from milkrun.errors import Conflict
from milkrun.host import files
from milkrun.repository.reading import Repository

TRIES = 20
TRY_AGAIN_S = 0.05


async def has_branch(repository: Repository, branch: str) -> bool:
    """Whether the repository's folder is a work tree with this branch checked out."""
    if repository.bare:
        return False
    done = await repository.git.run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1))
    return done.text == f"refs/heads/{branch}"


@contextlib.asynccontextmanager
async def index_locked(repository: Repository) -> AsyncIterator[None]:
    """No git command changes the index meanwhile: this is git's own lock. Conflict when it is held on."""
    lock = repository.git_dir / "index.lock"
    for _ in range(TRIES):
        if _created(lock):
            break
        await asyncio.sleep(TRY_AGAIN_S * (0.5 + random.random()))
    else:
        raise Conflict(
            f"another git command works in {repository.folder}; nothing was changed",
            remedy=f"try again; if no git runs there, remove {lock}",
        )
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _created(lock: Path) -> bool:
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


async def follow(repository: Repository, scratch: Path, entry: str, path: str, data: bytes) -> None:
    """The index has the entry and the file holds `data`; Conflict when the file has uncommitted changes.

    The index has to be locked. `scratch` is the path of a file that may be written.
    """
    await _refuse_edits(repository, path)
    index = repository.git_dir / "index"
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(index, scratch)
    variables = {"GIT_INDEX_FILE": str(scratch)}
    await repository.git.run("update-index", "--add", "--cacheinfo", entry, variables=variables)
    _replace(repository.folder / path, data, executable=entry.startswith("100755"))
    os.replace(scratch, index)  # noqa: PTH105 (as git does it: a rename, and no wait)


async def _refuse_edits(repository: Repository, path: str) -> None:
    done = await repository.git.run("status", "--porcelain", "-z", "--untracked-files=all", "--", path)
    if done.out:
        raise Conflict(
            f"{path} has changes in {repository.folder} that are not committed; nothing was changed",
            remedy=f"`git commit {path}` keeps them, `git checkout HEAD -- {path}` drops them",
        )


def _replace(file: Path, data: bytes, *, executable: bool) -> None:
    """The file holds `data`; whoever reads it meanwhile sees all of the old or all of the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    files.replace(file, data, mode=0o777 if executable else 0o666)
