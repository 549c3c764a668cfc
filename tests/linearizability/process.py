"""A registry as a process that can be killed, stopped, started again on the same data, and made to stand still."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Self

from ports import free_port, free_ports

READY = (b"the registry serves", b"Synced node info")
"""What the embedded registry and Consul say when they serve."""
WITHIN_S = 60.0
ROOT = Path(__file__).parents[2]


class RegistryProcess:
    """`up` is set while the process serves."""

    def __init__(self, port: int, command: Sequence[str]) -> None:
        self.port = port
        self.up = asyncio.Event()
        self.generation = 0
        """How often it was started: a request to a former one can do nothing any more."""
        self.log: deque[str] = deque(maxlen=50)
        self._command = command
        path = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
        self._environment = os.environ | {"PYTHONPATH": path}
        self._process: asyncio.subprocess.Process | None = None
        self._draining: asyncio.Task[None] | None = None

    @classmethod
    def embedded(cls, folder: Path, mutant: str = "") -> Self:
        """The embedded registry; `mutant` names a fault that it has (faulty.py), empty for none."""
        port = free_port()
        program = ["linearizability.faulty", mutant] if mutant else ["milkrun"]
        options = ["--http", f"127.0.0.1:{port}", "--data", str(folder / "data"), "--host", "n1"]
        return cls(port, [sys.executable, "-m", *program, "registry", *options, "--acl", "open"])

    @classmethod
    def consul(cls, folder: Path) -> Self:
        """A real Consul, in memory."""
        binary = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")
        http, server, serf = free_ports(3)
        ports = {"http": http, "server": server, "serf_lan": serf, "dns": -1, "serf_wan": -1, "grpc": -1}
        limits = {"http_max_conns_per_client": 2000}
        settings = folder / "consul.json"
        settings.write_text(json.dumps({"ports": ports, "limits": limits, "disable_update_check": True}))
        options = ["-bind", "127.0.0.1", "-config-file", str(settings), "-log-level", "info"]
        return cls(http, [binary, "agent", "-dev", *options])

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """The process serves."""
        self.generation += 1
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
        )
        ready = asyncio.Event()
        self._draining = tasks.create_task(self._drain(self._process, ready))
        async with asyncio.timeout(WITHIN_S):
            await ready.wait()
        assert self._process.returncode is None, "\n".join(self.log)
        self.up.set()

    async def _drain(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stdout
        async for text in process.stdout:
            self.log.append(text.decode(errors="replace").rstrip())
            if any(ready_text in text for ready_text in READY):
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


@contextlib.asynccontextmanager
async def serving(process: RegistryProcess) -> AsyncIterator[asyncio.TaskGroup]:
    """The process serves meanwhile, and is gone afterwards; gives the tasks that may start it again."""
    async with asyncio.TaskGroup() as tasks:
        await process.start(tasks)
        try:
            yield tasks
        finally:
            await process.end()
