"""The Envoy process: started apart from the router, found again after it, ended without loss."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import time
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.host.process import Identity, identity, runs
from milkrun.router import disk
from milkrun.router.apart import remembered
from milkrun.router.envoy.admin import Admin
from milkrun.router.envoy.binary import Binary
from milkrun.router.envoy.bootstrap import (
    ADMIN_SOCKET,
    ADS_SOCKET,
    BOOTSTRAP_FILE,
    FOLDER_DESCRIPTOR,
    bootstrap,
)
from milkrun.router.haproxy.process import refuse_taken

START_WAIT_S = 10.0
STOP_WAIT_S = 30.0
TERM_WAIT_S = 5.0
PORTS_WAIT_S = 1.0
DRAIN_S = 86_400
"""How long a listener that changed may keep its connections; a stop does not wait for it."""
LOG_FILE = "envoy.log"
LOG_BYTES_AT_MOST = 4 * 1024 * 1024
IDENTITY_FILE = "envoy.process.json"

_CREDENTIALS = struct.Struct("3i")


class Process:
    """Envoy in `folder`. It outlives the router: only `stop` ends it."""

    def __init__(self, folder: Path, binary: Binary) -> None:
        self._folder = folder
        self._binary = binary
        self._identity: Identity | None = None
        self.admin = Admin(folder)
        self._log = structlog.get_logger("envoy")

    @property
    def pid(self) -> int:
        """Which process it is; 0 when there is none."""
        return self._identity.pid if self._identity else 0

    def running(self) -> bool:
        """Whether the Envoy that this router started, or took over, still runs."""
        if self._identity is None:
            return False
        with contextlib.suppress(ChildProcessError):  # a former router's child is not ours to reap
            os.waitpid(self._identity.pid, os.WNOHANG)
        return runs(self._identity)

    def adopt(self) -> bool:
        """True when the Envoy that a former router started still runs: it is ours now, untouched."""
        self._identity = remembered(self._folder / IDENTITY_FILE)
        if self.running():
            return True
        # A router that was killed right after it started Envoy had not written down which process that is.
        self._identity = self._listening()
        if self._identity is None:
            return False
        disk.write(self._folder / IDENTITY_FILE, msgspec.json.encode(self._identity))
        return True

    def _listening(self) -> Identity | None:
        """The process that made the admin's socket, when it still listens there and is this user's."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(1)
                    probe.connect(f"/proc/self/fd/{descriptor}/{ADMIN_SOCKET}")
                    found = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            finally:
                os.close(descriptor)
            pid, user, _ = _CREDENTIALS.unpack(found)
            return identity(pid) if user == os.getuid() else None
        return None

    async def start(self, node: str, ports: list[tuple[str, int]]) -> None:
        """A new Envoy asks for its configuration. Raises PortTaken when another program has one of the ports."""
        await self._free(ports)
        disk.write(self._folder / BOOTSTRAP_FILE, bootstrap(node))
        try:
            pid = self._spawn()
        except OSError as error:
            raise DataPlaneError(f"{self._binary.path} does not start: {error.strerror}") from error
        self._identity = identity(pid) or Identity(pid=pid, ticks=0, boot="")
        disk.write(self._folder / IDENTITY_FILE, msgspec.json.encode(self._identity))
        await self._answers()

    async def _free(self, ports: list[tuple[str, int]]) -> None:
        """The ports are free; an Envoy that has just died takes a moment to give them back."""
        end = time.monotonic() + PORTS_WAIT_S
        while True:
            try:
                for host, port in ports:
                    refuse_taken(host, port)
            except PortTaken:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(0.02)
            else:
                return

    def _spawn(self) -> int:
        """The pid of an Envoy in a session of its own, so that what ends the router does not end it."""
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        options = ["--disable-hot-restart", "--log-level", "warning", "--drain-strategy", "immediate"]
        options += ["--drain-time-s", str(DRAIN_S), "--parent-shutdown-time-s", str(DRAIN_S + 1)]
        return os.posix_spawn(
            self._binary.path,
            [self._binary.path, "-c", str(self._folder / BOOTSTRAP_FILE), *options],
            {"PATH": os.environ.get("PATH", os.defpath)},  # no token of ours in its environment
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._folder / LOG_FILE), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_OPEN, FOLDER_DESCRIPTOR, str(self._folder), os.O_RDONLY | os.O_DIRECTORY, 0),
            ],
            setsid=True,
        )

    async def _answers(self) -> None:
        last: DataPlaneError | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_S):
                while self.running():
                    try:
                        await self.admin.get("/ready", wait_s=1.0)
                    except DataPlaneError as error:
                        last = error
                        await asyncio.sleep(0.01)
                        continue
                    return
        tail = (disk.read(self._folder / LOG_FILE) or b"")[-600:].decode(errors="replace").strip()
        raise DataPlaneError(f"Envoy did not come up ({last}): {tail}")

    def trim_log(self) -> None:
        """Envoy's log has a bounded size: a long one becomes `envoy.log.1`, in place of the former one."""
        log = self._folder / LOG_FILE
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_BYTES_AT_MOST:
                shutil.copyfile(log, log.with_name(f"{LOG_FILE}.1"))  # Envoy holds the file open: it stays
                log.with_name(f"{LOG_FILE}.1").chmod(0o600)
                os.truncate(log, 0)

    async def stop(self) -> None:
        """It refuses new connections, what was in flight has ended, and the process is gone.

        What still runs after STOP_WAIT_S is cut, and the log says so.
        """
        if not self.running() or self._identity is None:
            return
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await self._soft_stopped()
        except (DataPlaneError, TimeoutError) as error:
            if self.running():
                why = str(error) or "the limit is over"
                self._log.warning("Envoy stops with requests in flight", why=why)
        with contextlib.suppress(ProcessLookupError):  # it may end by itself at any moment
            os.kill(self._identity.pid, signal.SIGTERM)
            if not await self._gone(TERM_WAIT_S):
                os.killpg(self._identity.pid, signal.SIGKILL)
        await self._gone(TERM_WAIT_S)
        for left in (IDENTITY_FILE, ADMIN_SOCKET, ADS_SOCKET):
            (self._folder / left).unlink(missing_ok=True)

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

    async def _gone(self, within_s: float) -> bool:
        """Whether the process has ended within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.running():
                    await asyncio.sleep(0.02)
        return not self.running()
