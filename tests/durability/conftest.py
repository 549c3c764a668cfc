"""The whole registry as a process, that a test can stop, watch and put on a disk of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from ports import free_port

from milkrun.consul import Address, Registry

MILKRUN = Path(sys.executable).parent / "milkrun"
START_S = 30


class Running:
    """One registry process, a client of it, and what it logged so far."""

    def __init__(self, process: asyncio.subprocess.Process, registry: Registry, log: list[str]) -> None:
        self.process = process
        self.registry = registry
        self._log = log

    @property
    def log(self) -> str:
        return "".join(self._log)

    async def ended(self) -> int:
        """Its exit status, when it has ended by itself and its log is whole."""
        async with asyncio.timeout(START_S):
            status = await self.process.wait()
            await self.rest(lambda _: False)
        return status

    async def rest(self, wanted: Callable[[str], bool]) -> None:
        """The log is read up to the line that is wanted, or to its end."""
        assert self.process.stderr
        async for line in self.process.stderr:
            self._log.append(line.decode())
            if wanted(self._log[-1]):
                return


Serving = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def _serving(folder: Path, *, within: tuple[str, ...] = ()) -> AsyncIterator[Running]:
    port = free_port()
    command = [*within, str(MILKRUN), "registry", "--http", f"127.0.0.1:{port}", "--data", str(folder)]
    command += ["--host", "n1", "--acl", "open"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with Registry(Address(url=f"http://127.0.0.1:{port}")) as registry:
            running = Running(process, registry, [])
            async with asyncio.timeout(START_S):
                await running.rest(lambda line: "the registry serves" in line)
            assert process.returncode is None, running.log
            yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.fixture
def serving() -> Serving:
    """Runs a registry on a folder; with `within`, as the command that these words start."""
    return _serving
