"""Reads each new commit of a repository within a millisecond, for the one who reads every commit.

Through two git processes that stay open. Whatever they cannot tell is asked of a new git process, as
`Repository` does it: that is slower and never less right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import msgspec

from milkrun.model import CommitId, branch_name
from milkrun.repository.batch import Batch, BatchFailed
from milkrun.repository.reading import File, Repository, Tip

DEPTH_AT_MOST = 8
_TREE_MODE = "40000"
_SUBMODULE_MODE = "160000"


class _Commit(msgspec.Struct, frozen=True):
    id: CommitId
    tree: str
    parents: tuple[str, ...]
    time: float


class QuickReader:
    """What `Repository` reads, sooner. Close it."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._objects = Batch(repository.git, "--batch")
        self._sizes = Batch(repository.git, "--batch-check")
        self._counted: tuple[str, int] = ("", 0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """The open processes are gone; they start again with the next question."""
        await self._objects.close()
        await self._sizes.close()

    async def tip(self, branch: str) -> Tip:
        """As `Repository.tip`."""
        try:
            commit = await self._commit(f"refs/heads/{branch_name(branch)}")
        except BatchFailed:
            return await self.repository.tip(branch)
        return Tip(commit.id, commit.time)

    async def generation(self, commit: CommitId) -> int:
        """As `Repository.generation`: one more than its only parent's, when that was the last one asked for."""
        counted, generation = self._counted
        try:
            parents = (await self._commit(commit)).parents
        except BatchFailed:
            parents = ()
        if counted == commit:
            pass
        elif parents == (counted,):
            generation += 1
        else:
            generation = await self.repository.generation(commit)
        self._counted = (commit, generation)
        return generation

    async def files(self, commit: CommitId, *under: str) -> dict[str, File]:
        """As `Repository.files`; `under` has names of the top folder only."""
        try:
            entries = await self._walk((await self._commit(commit)).tree, "", under, 0)
            blobs = sorted({blob for mode, blob in entries.values() if mode != _SUBMODULE_MODE})
            sizes = {found.id: found.size for found in await self._sizes.get(blobs)}
        except BatchFailed:
            return await self.repository.files(commit, *under)
        return {path: File(blob, sizes.get(blob, 0), mode) for path, (mode, blob) in entries.items()}

    async def contents(self, files: Iterable[File]) -> dict[str, bytes]:
        """As `Repository.contents`."""
        files = list(files)
        try:
            found = await self._objects.get(sorted({file.blob for file in files}))
        except BatchFailed:
            return await self.repository.contents(files)
        return {blob.id: blob.data for blob in found}

    async def _commit(self, name: str) -> _Commit:
        [found] = await self._objects.get([name])
        if found.kind != "commit":
            raise BatchFailed(f"{name[:80]!r} is a {found.kind} and not a commit")
        head = found.data.partition(b"\n\n")[0].decode(errors="replace").split("\n")
        rows = [line.partition(" ") for line in head]
        tree = next((value for key, _, value in rows if key == "tree"), "")
        committer = next((value for key, _, value in rows if key == "committer"), "")
        words = committer.rsplit(" ", 2)
        if not tree or len(words) != 3 or not words[1].isdigit():
            raise BatchFailed(f"the commit {found.id} has an odd header")
        parents = tuple(value for key, _, value in rows if key == "parent")
        return _Commit(CommitId(found.id), tree, parents, float(words[1]))

    async def _walk(
        self, tree: str, prefix: str, under: tuple[str, ...], depth: int
    ) -> dict[str, tuple[str, str]]:
        """The mode and the blob of each path in the tree; of `under`, when it is given, at the top only."""
        if depth > DEPTH_AT_MOST:
            raise BatchFailed("the folders are nested too deep")
        [found] = await self._objects.get([tree])
        entries: dict[str, tuple[str, str]] = {}
        for mode, name, child in _rows(found.data, len(tree) // 2):
            if under and depth == 0 and name not in under:
                continue
            if mode == _TREE_MODE:
                entries |= await self._walk(child, f"{prefix}{name}/", under, depth + 1)
            else:
                entries[prefix + name] = (mode, child)
        return entries


def _rows(data: bytes, id_bytes: int) -> Iterator[tuple[str, str, str]]:
    """Mode, name and id of each entry of a tree object: mode, space, name, NUL, the id's bytes, and so on."""
    at = 0
    while at < len(data):
        space = data.index(b" ", at)
        end = data.index(b"\0", space)
        child = data[end + 1 : end + 1 + id_bytes].hex()
        yield data[at:space].decode(), data[space + 1 : end].decode(errors="backslashreplace"), child
        at = end + 1 + id_bytes
