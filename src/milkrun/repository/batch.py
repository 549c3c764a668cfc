"""A git process that is kept open and asked for one object after the other: no start of a program each time."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, Process

import msgspec

from milkrun.errors import MilkrunError
from milkrun.repository.git import Git, end

ANSWER_WAIT_S = 5.0
BYTES_AT_MOST = 4 << 20
_NAMES_AT_ONCE = 100


class BatchFailed(MilkrunError):
    """The open process did not give the object; whoever asked can ask a new git process."""


class Found(msgspec.Struct, frozen=True):
    """An object; `data` is empty when only its size was asked for."""

    id: str
    kind: str
    size: int
    data: bytes


class Batch:
    """`git cat-file` with `mode` --batch or --batch-check, started when first asked and again after trouble."""

    def __init__(self, git: Git, mode: str) -> None:
        self._git = git
        self._mode = mode
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def get(self, names: list[str]) -> list[Found]:
        """The objects of these names (ids, or full names of refs), in their order. BatchFailed if any is not."""
        found: list[Found] = []
        async with self._turn:
            whole = False
            try:
                async with asyncio.timeout(ANSWER_WAIT_S):
                    for start in range(0, len(names), _NAMES_AT_ONCE):
                        found += await self._ask(names[start : start + _NAMES_AT_ONCE])
                whole = True
            except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
                raise BatchFailed(f"git cat-file gave no answer: {error}") from error
            finally:
                if not whole:  # an answer may be half read: the next question needs a new process
                    await self._end()
        return found

    async def close(self) -> None:
        """The process is gone."""
        async with self._turn:
            await self._end()

    async def _ask(self, names: list[str]) -> list[Found]:
        if self._process is None:
            self._process = await self._git.start("cat-file", self._mode, stderr=DEVNULL)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout  # noqa: S101, PT018 (both were asked for)
        stdin.write("".join(f"{name}\n" for name in names).encode())
        await stdin.drain()
        found = []
        for name in names:
            header = (await stdout.readline()).decode().split()
            if len(header) != 3:
                raise BatchFailed(f"git cat-file does not find {name[:80]!r}")
            size = int(header[2])
            data = b""
            if self._mode == "--batch":
                if size > BYTES_AT_MOST:
                    raise BatchFailed(f"{name[:80]!r} is too large to be read this way")
                data = (await stdout.readexactly(size + 1))[:-1]
            found.append(Found(header[0], header[1], size, data))
        return found

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            await end(process)
