"""The Envoy process: what it is started with, and when it has ended its requests."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from milkrun.router import disk
from milkrun.router.apart import Apart
from milkrun.router.envoy.admin import Admin
from milkrun.router.envoy.binary import Binary
from milkrun.router.envoy.bootstrap import (
    ADMIN_SOCKET,
    ADS_SOCKET,
    BOOTSTRAP_FILE,
    FOLDER_DESCRIPTOR,
    bootstrap,
)

DRAIN_S = 86_400
"""How long a listener that changed may keep its connections; a stop does not wait for it."""
LOG_FILE = "envoy.log"
IDENTITY_FILE = "envoy.process.json"


class Process:
    """Envoy in `folder`. It outlives the router: only `stop` ends it."""

    def __init__(self, folder: Path, binary: Binary) -> None:
        self._folder = folder
        self._binary = binary
        self._apart = Apart(
            folder,
            "Envoy",
            record=IDENTITY_FILE,
            log=LOG_FILE,
            socket=ADMIN_SOCKET,
            leaves=[ADMIN_SOCKET, ADS_SOCKET],
        )
        self.admin = Admin(folder)

    @property
    def pid(self) -> int:
        """Which process it is; 0 when there is none."""
        return self._apart.pid

    def running(self) -> bool:
        """Whether the Envoy that this router started, or took over, still runs."""
        return self._apart.running()

    def adopt(self) -> bool:
        """True when the Envoy that a former router started still runs: it is ours now, untouched."""
        return self._apart.adopt()

    async def start(self, node: str, ports: list[tuple[str, int]]) -> None:
        """A new Envoy asks for its configuration. Raises PortTaken when another program has one of the ports."""
        disk.write(self._folder / BOOTSTRAP_FILE, bootstrap(node))
        options = ["--disable-hot-restart", "--log-level", "warning", "--drain-strategy", "immediate"]
        options += ["--drain-time-s", str(DRAIN_S), "--parent-shutdown-time-s", str(DRAIN_S + 1)]
        folder = (os.POSIX_SPAWN_OPEN, FOLDER_DESCRIPTOR, str(self._folder), os.O_RDONLY | os.O_DIRECTORY, 0)
        await self._apart.start(
            [self._binary.path, "-c", str(self._folder / BOOTSTRAP_FILE), *options],
            ports,
            lambda: self.admin.get("/ready", wait_s=1.0),
            given=[folder],
        )

    def trim_log(self) -> None:
        """Envoy's log has a bounded size: a long one becomes `envoy.log.1`, in place of the former one."""
        self._apart.trim_log()

    async def stop(self) -> None:
        """It refuses new connections, what was in flight has ended, and the process is gone, as `Apart.end` does it."""
        await self._apart.end(self._soft_stopped)

    async def _soft_stopped(self) -> None:
        """Answers ask callers to close, the listeners are closed, and no request is open; or it is gone."""
        await self.admin.post("/healthcheck/fail")
        await self.admin.post("/drain_listeners")
        while self.running() and await self._in_flight():
            await asyncio.sleep(0.02)

    async def _in_flight(self) -> int:
        """The requests, and the connections that carry no HTTP, that callers have open."""
        body = await self.admin.get(r"/stats?filter=downstream_(rq|cx)_active$")
        count = 0
        for line in body.decode(errors="replace").splitlines():
            name, _, value = line.rpartition(": ")
            if name.startswith("tcp.") or (name.startswith("http.") and name.endswith("rq_active")):
                count += int(value) - (name == "http.admin.downstream_rq_active")  # the asking itself
        return count
