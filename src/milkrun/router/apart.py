"""A proxy's process: started apart from the router, found again by the next one, ended in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.host.process import Identity, identity, runs
from milkrun.router import disk
from milkrun.router.ports import refuse_taken
from milkrun.router.socket_path import socket_path

START_WAIT_S = 10.0
STOP_WAIT_S = 30.0
EXIT_WAIT_S = 1.0
TERM_WAIT_S = 5.0
PORTS_WAIT_S = 1.0
LOG_BYTES_AT_MOST = 4 * 1024 * 1024

_CREDENTIALS = struct.Struct("3i")


class Apart:
    """The process in `folder` that `name` calls. It outlives the router: only `end` ends it.

    Its files there: `record` says which process it is, `log` has what it prints, `socket` is one that it listens
    on, and `leaves` are the patterns of what it would leave behind.
    """

    def __init__(
        self, folder: Path, name: str, *, record: str, log: str, socket: str, leaves: Sequence[str]
    ) -> None:
        self._folder = folder
        self._name = name
        self._record = folder / record
        self._log_file = folder / log
        self._socket = socket
        self._leaves = leaves
        self._identity: Identity | None = None
        self._log = structlog.get_logger(name.lower())

    @property
    def pid(self) -> int:
        """Which process it is; 0 when there is none."""
        return self._identity.pid if self._identity else 0

    def running(self) -> bool:
        """Whether the process that this router started, or took over, still runs."""
        if self._identity is None:
            return False
        with contextlib.suppress(ChildProcessError):  # a former router's child is not ours to reap
            os.waitpid(self._identity.pid, os.WNOHANG)
        return runs(self._identity)

    def adopt(self) -> bool:
        """True when the process that a former router started still runs: it is ours now, untouched."""
        self._identity = remembered(self._record)
        if self.running():
            return True
        # A router that was killed right after it started the process had not written down which one that is.
        self._identity = listening(self._folder, self._socket)
        if self._identity is None:
            return False
        self._write_down(self._identity)
        return True

    async def start(
        self,
        program: Sequence[str],
        ports: Sequence[tuple[str, int]],
        ask: Callable[[], Awaitable[object]],
        *,
        given: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        """A new process answers to `ask`. Raises PortTaken when another program has one of the ports.

        `given` are posix_spawn's actions for the descriptors that the process needs beyond its log.
        """
        await _free(ports)
        try:
            pid = self._spawn(program, given)
        except OSError as error:
            raise DataPlaneError(f"{program[0]} does not start: {error.strerror}") from error
        self._identity = identity(pid) or Identity(pid=pid, ticks=0, boot="")
        self._write_down(self._identity)
        await self._answers(ask)

    def trim_log(self) -> None:
        """Its log has a bounded size: a long one becomes `LOG.1`, in place of the former one."""
        former = self._log_file.with_name(f"{self._log_file.name}.1")
        with contextlib.suppress(FileNotFoundError):
            if self._log_file.stat().st_size > LOG_BYTES_AT_MOST:
                shutil.copyfile(self._log_file, former)  # the process holds the file open: it stays
                former.chmod(0o600)
                os.truncate(self._log_file, 0)

    async def end(self, soft: Callable[[], Awaitable[None]]) -> None:
        """`soft` has ended its requests, and the process is gone, also one that a former router left.

        What still runs after STOP_WAIT_S is cut, and the log says so.
        """
        if self._identity is None:
            self.adopt()
        if not self.running():
            return
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await soft()
        except (DataPlaneError, ProcessLookupError, TimeoutError) as error:
            if not await self._gone(EXIT_WAIT_S):  # while it exits it answers nobody any more
                why = str(error) or "the limit is over"
                self._log.warning(f"{self._name} stops with requests in flight", why=why)
        with contextlib.suppress(ProcessLookupError):  # it may end by itself at any moment
            os.kill(self.pid, signal.SIGTERM)
            if not await self._gone(TERM_WAIT_S):
                os.killpg(self.pid, signal.SIGKILL)
        await self._gone(TERM_WAIT_S)
        for left in (self._record, *(path for each in self._leaves for path in self._folder.glob(each))):
            left.unlink(missing_ok=True)

    def _write_down(self, known: Identity) -> None:
        disk.write(self._record, msgspec.json.encode(known))

    def _spawn(self, program: Sequence[str], given: Sequence[tuple[Any, ...]]) -> int:
        """The pid of the program in a session of its own, so that what ends the router does not end it."""
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(
            program[0],
            list(program),
            {"PATH": os.environ.get("PATH", os.defpath)},  # no token of ours in its environment
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log_file), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                *given,
            ],
            setsid=True,
        )

    async def _answers(self, ask: Callable[[], Awaitable[object]]) -> None:
        last: DataPlaneError | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_S):
                while self.running():
                    try:
                        await ask()
                    except DataPlaneError as error:
                        last = error
                        await asyncio.sleep(0.01)
                        continue
                    return
        tail = (disk.read(self._log_file) or b"")[-600:].decode(errors="replace").strip()
        raise DataPlaneError(f"{self._name} did not come up ({last}): {tail}")

    async def _gone(self, within_s: float) -> bool:
        """Whether the process has ended within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.running():
                    await asyncio.sleep(0.02)
        return not self.running()


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The record's content. Former routers wrote `started` for `ticks`, and not of which boot."""

    pid: int
    ticks: int | None = None
    boot: str | None = None
    started: int | None = None


def remembered(record: Path) -> Identity | None:
    """The process that a router wrote down last, whether or not it still runs; None when nothing is known."""
    kept = disk.load(record, _Kept)
    if kept is None:
        return None
    if kept.ticks is not None and kept.boot is not None:
        return Identity(pid=kept.pid, ticks=kept.ticks, boot=kept.boot)
    now = identity(kept.pid)
    return now if now and now.ticks == kept.started else None


def listening(folder: Path, name: str) -> Identity | None:
    """The process that made the socket of that name, when it still listens there and is this user's."""
    with (
        contextlib.suppress(OSError),
        socket_path(folder, name) as path,
        socket.socket(socket.AF_UNIX) as probe,
    ):
        probe.settimeout(1)
        probe.connect(path)
        found = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, user, _ = _CREDENTIALS.unpack(found)
        return identity(pid) if user == os.getuid() else None
    return None


async def _free(ports: Sequence[tuple[str, int]]) -> None:
    """The ports are free; a process that has just died, and its children, take a moment to give them back."""
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
