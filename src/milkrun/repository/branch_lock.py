"""Holds a branch at its value until it is moved: git's own reference transaction, kept open."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping

from milkrun.errors import Conflict, MilkrunError, TimedOut
from milkrun.model import CommitId, branch_name
from milkrun.repository.git import Git, end

ANSWER_WAIT_S = 10.0


class BranchLock:
    """A branch that nobody else can move."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def move(self) -> None:
        """The branch is at its new commit."""
        await self.tell("commit", answer="commit")

    async def tell(self, command: str, *, answer: str) -> None:
        """Git took the command."""
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin and stdout and stderr  # noqa: S101, PT018 (all three were asked for)
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                stdin.write(f"{command}\n".encode())
                line = await stdout.readline()
                if line != f"{answer}: ok\n".encode():
                    said = (await stderr.read(4096)).decode(errors="replace").strip()
                    raise MilkrunError(f"git update-ref failed: {said or 'it ended without a word'}")
        except TimeoutError as error:
            raise TimedOut(f"git update-ref gave no answer in {ANSWER_WAIT_S:g} s") from error


@contextlib.asynccontextmanager
async def held(
    git: Git, branch: str, *, old: CommitId, new: CommitId, note: str, identity: Mapping[str, str]
) -> AsyncIterator[BranchLock]:
    """The branch stays at `old` for the block, which may move it to `new`. Conflict when it is elsewhere.

    `note` is the line in the reflog.
    """
    ref = f"refs/heads/{branch_name(branch)}"
    process = await git.start("update-ref", "-m", note, "--stdin", variables=identity)
    lock = BranchLock(process)
    try:
        try:
            await lock.tell("start", answer="start")
            await lock.tell(f"update {ref} {new} {old}\nprepare", answer="prepare")
        except TimedOut:
            raise
        except MilkrunError as error:
            raise Conflict(
                f"{branch} cannot be moved on from {old[:10]}; nothing was changed ({error.message})",
                remedy="try again",
            ) from error
        yield lock
    finally:
        await _let_go(process)


async def _let_go(process: Process) -> None:
    """Git has ended and unlocked the branch. A kill comes last: it would leave the lock behind."""
    if process.stdin:
        process.stdin.close()
    try:
        async with asyncio.timeout(ANSWER_WAIT_S):
            await process.wait()
    except TimeoutError:
        pass  # `end` does the rest
    finally:
        await end(process)
