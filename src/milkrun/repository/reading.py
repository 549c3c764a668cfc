"""Reads a repository's commits: its branch's tip, the files of a commit and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from milkrun.errors import InputRefused, MilkrunError, NotFound
from milkrun.model import CommitId, branch_name
from milkrun.repository.git import Git
from milkrun.settings.text import typed

_ID = re.compile(r"[0-9a-f]{40,64}")
_NAMES_A_CALL = 500
_BYTES_A_CALL = 32 << 20
_PLAIN_MODES = ("100644", "100755", "100664")


class Tip(msgspec.Struct, frozen=True):
    """The newest commit of a branch, and when it was made (seconds since 1970)."""

    commit: CommitId
    time: float


class File(msgspec.Struct, frozen=True):
    """An entry of a commit's tree. A link or a submodule has an entry too, but is not `plain`."""

    blob: str
    size: int
    mode: str

    @property
    def plain(self) -> bool:
        """Whether it is a file with content, and not a link to something or a submodule."""
        return self.mode in _PLAIN_MODES


class Repository:
    """A git repository on this machine, bare or with a work tree. Nothing of it is kept in memory."""

    def __init__(self, folder: Path, *, git_dir: Path, common_dir: Path, bare: bool) -> None:
        self.folder = folder
        self.git = Git(folder)
        self.git_dir = git_dir
        self.common_dir = common_dir
        self.bare = bare

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """The repository whose top is `folder`; a folder somewhere inside another repository is not one.

        Raises NotFound when there is none, PartMissing without git.
        """
        folder, there = _resolved(folder)
        if not there:
            raise NotFound(f"there is no folder {folder}", remedy="milkrun init DIR --template dairy")
        questions = ("--is-inside-work-tree", "--absolute-git-dir", "--git-common-dir", "--show-prefix")
        done = await Git(folder).run("rev-parse", *questions, accept=(0, 128))
        if done.status != 0:
            await _explain(folder)
        inside, git_dir, common_dir, prefix = (done.text.split("\n") + [""] * 4)[:4]
        bare = inside == "false"
        if prefix or (bare and Path(git_dir) != folder):
            raise _not_one(folder)
        common = (folder / common_dir).resolve()
        return cls(folder, git_dir=Path(git_dir), common_dir=common, bare=bare)

    async def tip(self, branch: str) -> Tip:
        """The branch's newest commit; raises NotFound when there is no such branch or no commit yet."""
        ref = f"refs/heads/{branch_name(branch)}"
        done = await self.git.run("rev-list", "--max-count=1", "--timestamp", ref, "--", accept=(0, 128))
        time, _, commit = done.text.partition(" ")
        if done.status != 0:
            await self.git.run("rev-parse", "--git-dir")  # when git can read nothing here, this says why
            raise NotFound(
                f"{self.folder} has no commit on the branch {branch}",
                remedy=f"commit something on {branch}, or name another branch in milkrun.toml",
            )
        return Tip(_commit_id(commit), float(time))

    async def head(self, branch: str) -> CommitId:
        """The id of the branch's newest commit; raises NotFound as `tip` does."""
        return (await self.tip(branch)).commit

    async def generation(self, commit: CommitId) -> int:
        """How many commits there are up to and including this one: it grows while history only grows."""
        done = await self.git.run("rev-list", "--count", _commit_id(commit), "--")
        return int(done.text)

    async def files(self, commit: CommitId, *under: str) -> dict[str, File]:
        """The commit's files by path; with `under`, only those files and what is in those folders.

        A path that is not UTF-8 shows its odd bytes as escapes.
        """
        done = await self.git.run(
            "ls-tree", "-r", "-z", "-l", "--full-tree", _commit_id(commit), "--", *under
        )
        found: dict[str, File] = {}
        for entry in done.out.split(b"\0")[:-1]:
            about, _, path = entry.partition(b"\t")
            mode, _, blob, size = about.decode().split()
            found[path.decode(errors="backslashreplace")] = File(
                blob, int(size) if size.isdigit() else 0, mode
            )
        return found

    async def contents(self, files: Iterable[File]) -> dict[str, bytes]:
        """What stands in these files, by their blob's id. All of a call are read through one git process."""
        wanted = {file.blob: file.size for file in files}
        found: dict[str, bytes] = {}
        while wanted:
            batch: list[str] = []
            size = 0
            for blob, bytes_ in wanted.items():
                if batch and (size + bytes_ > _BYTES_A_CALL or len(batch) == _NAMES_A_CALL):
                    break
                batch.append(blob)
                size += bytes_
            found |= await self._batch(batch)
            wanted = {blob: size for blob, size in wanted.items() if blob not in found}
        return found

    async def read(self, commit: CommitId, path: str, limit: int) -> bytes:
        """What stands in one file of a commit. Raises NotFound; InputRefused for a link or over `limit`."""
        file = (await self.files(commit, path)).get(path)
        if not file:
            raise NotFound(f"{path} is not in the commit {commit[:10]}")
        if not file.plain:
            raise InputRefused("it is a link or a submodule, not a file", file=path)
        if file.size > limit:
            raise InputRefused(f"it has {file.size} bytes; {limit} is the most", file=path)
        return (await self.contents([file]))[file.blob]

    async def is_ancestor(self, old: CommitId, new: CommitId) -> bool:
        """Whether `new` has `old` in its history, or is the same."""
        done = await self.git.run(
            "merge-base", "--is-ancestor", _commit_id(old), _commit_id(new), accept=(0, 1)
        )
        return done.status == 0

    async def _batch(self, blobs: list[str]) -> dict[str, bytes]:
        done = await self.git.run(
            "cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in blobs).encode()
        )
        found: dict[str, bytes] = {}
        at = 0
        for blob in blobs:
            end = done.out.index(b"\n", at)
            header = done.out[at:end].decode(errors="replace").split()
            if len(header) != 3 or header[0] != blob:
                raise MilkrunError(
                    f"{self.folder} has lost a file's content ({' '.join(header)})",
                    remedy=f"git -C {self.folder} fsck",
                )
            size = int(header[2])
            found[blob] = done.out[end + 1 : end + 1 + size]
            at = end + size + 2
        return found


def _resolved(folder: Path) -> tuple[Path, bool]:
    return folder.resolve(), folder.is_dir()


def _commit_id(text: str) -> CommitId:
    if not _ID.fullmatch(text):
        raise InputRefused(f"{text[:80]!r} is not a commit's id")
    return CommitId(text)


async def _explain(folder: Path) -> None:
    """Raises NotFound when the folder is in no repository, else what git says of it."""
    try:
        await Git(folder).run("rev-parse", "--git-dir")
    except MilkrunError as error:
        if "not a git repository" not in error.message:
            raise
        raise _not_one(folder) from error


def _not_one(folder: Path) -> NotFound:
    where = typed(folder)
    return NotFound(
        f"{folder} is not a git repository of its own",
        remedy=f"git -C {where} init -b main && git -C {where} add -A && git -C {where} commit -m 'Start'",
    )
