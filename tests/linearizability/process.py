"""A registry as a process that can be killed, stopped, started again on the same data, and made to stand still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from pathlib import Path

READY = b"the registry serves"
WITHIN_S = 60.0
TESTS = Path(__file__).parents[1]


class RegistryProcess:
    """`up` is set while the process serves. `mutant` names a fault that it has (faulty.py), empty for none."""

    def __init__(self, port: int, folder: Path, mutant: str = "") -> None:
        self.port = port
        self.up = asyncio.Event()
        self.starts = 0
        self.log: deque[str] = deque(maxlen=50)
        program = ["linearizability.faulty", mutant] if mutant else ["milkrun"]
        listen = ["--http", f"127.0.0.1:{port}", "--data", str(folder), "--host", "n1"]
        self._command = [sys.executable, "-m", *program, "registry", *listen]
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
        self._environment = os.environ | {"PYTHONPATH": path}
        self._process: asyncio.subprocess.Process | None = None
        self._draining: asyncio.Task[None] | None = None

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """The process serves."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        ready = asyncio.Event()
        self._draining = tasks.create_task(self._drain(self._process, ready))
        async with asyncio.timeout(WITHIN_S):
            await ready.wait()
        assert self._process.returncode is None, "\n".join(self.log)
        self.starts += 1
        self.up.set()

    async def _drain(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stderr
        async for text in process.stderr:
            self.log.append(text.decode(errors="replace").rstrip())
            if READY in text:
                ready.set()
        await process.wait()
        ready.set()

    def tell(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """The process is gone."""
        self.up.clear()
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        async with asyncio.timeout(WITHIN_S):
            await self._process.wait()
            if self._draining:
                await asyncio.wait([self._draining])
        self._process = self._draining = None
