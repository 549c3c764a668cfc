"""A registry in a process of its own, that a test can kill."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from milkrun.consul import Address, Registry

PROGRAM = """
import asyncio, resource, sys
from pathlib import Path
import structlog
from milkrun.errors import MilkrunError
from milkrun.registry.server import serve

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
port, folder = int(sys.argv[1]), Path(sys.argv[2])
ready = lambda: print("ready", flush=True)
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    asyncio.run(serve(("127.0.0.1", port), folder, node="n1", ready=ready))
except MilkrunError as error:
    print(f"{error.message} | {error.remedy}", file=sys.stderr)
    sys.exit(error.exit_status)
"""


class Running:
    """One registry process and a client of it."""

    def __init__(self, process: asyncio.subprocess.Process, registry: Registry) -> None:
        self.process = process
        self.registry = registry

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


Start = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def _running(folder: Path, port: int, *, file_bytes_at_most: int = 0) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(port),
        str(folder),
        str(file_bytes_at_most),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"ready\n"
        async with Registry(Address(url=f"http://127.0.0.1:{port}")) as registry:
            yield Running(process, registry)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.fixture
def start() -> Start:
    return _running
