"""The HAProxy process: started apart from the router, found again after it, reloaded and ended without loss."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Container
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.host.process import Identity, identity, runs
from milkrun.router import disk
from milkrun.router.apart import remembered
from milkrun.router.haproxy import parse
from milkrun.router.haproxy.binary import Binary
from milkrun.router.haproxy.config import ADMIN_SOCKET, CONFIG_FILE, MASTER_SOCKET
from milkrun.router.haproxy.socket import RELOAD_WAIT_S, RuntimeSocket

START_WAIT_S = 10.0
STOP_WAIT_S = 30.0
REFUSED_WAIT_S = 5.0
EXIT_WAIT_S = 1.0
TERM_WAIT_S = 5.0
CHECK_WAIT_S = 30.0
PORTS_WAIT_S = 1.0
NEW_WAIT_S = 5.0
LOG_BYTES_AT_MOST = 4 * 1024 * 1024

_CREDENTIALS = struct.Struct("3i")


class Refused(DataPlaneError):
    """HAProxy would not have a new file: what serves goes on as it was. Another try is worth it after `again_s`."""

    again_s = 10.0


class Process:
    """HAProxy's master in `folder`. It outlives the router: only `stop` ends it."""

    def __init__(self, folder: Path, binary: Binary) -> None:
        self._folder = folder
        self._binary = binary
        self._identity: Identity | None = None
        self.admin = RuntimeSocket(folder, ADMIN_SOCKET)
        self.master = RuntimeSocket(folder, MASTER_SOCKET)
        self._log = structlog.get_logger("haproxy")

    def running(self) -> bool:
        """Whether the master that this router started, or took over, still runs."""
        if self._identity is None:
            return False
        with contextlib.suppress(ChildProcessError):  # a former router's child is not ours to reap
            os.waitpid(self._identity.pid, os.WNOHANG)
        return runs(self._identity)

    def adopt(self) -> bool:
        """True when the master that a former router started still runs: it is ours now, untouched."""
        self._identity = remembered(self._folder / "process.json")
        if self.running():
            return True
        # A router that was killed right after it started HAProxy had not written down which process that is.
        self._identity = self._listening()
        if self._identity is None:
            return False
        disk.write(self._folder / "process.json", msgspec.json.encode(self._identity))
        return True

    def _listening(self) -> Identity | None:
        """The process that made the master's socket, when it still listens there and is this user's."""
        with contextlib.suppress(OSError), self.master.path() as path, socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(path)
            found = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, user, _ = _CREDENTIALS.unpack(found)
            return identity(pid) if user == os.getuid() else None
        return None

    async def check(self, folder: Path | None = None) -> None:
        """Raises Refused with HAProxy's own words when it would not start from its file (or that in `folder`)."""
        try:
            answer = await asyncio.to_thread(
                subprocess.run,
                [self._binary.path, "-c", "-f", CONFIG_FILE],
                cwd=folder or self._folder,
                capture_output=True,
                text=True,
                timeout=CHECK_WAIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataPlaneError(f"{self._binary.path} cannot check its file: {error}") from error
        if answer.returncode:
            said = [line for line in answer.stderr.splitlines() if line.startswith("[ALERT]")]
            raise Refused(f"HAProxy refuses its file: {' '.join(said or [answer.stderr])[:800]}")

    async def start(self, ports: list[tuple[str, int]]) -> None:
        """A new master serves from the file. Raises PortTaken when another program has one of its ports."""
        await self._free(ports)
        try:
            pid = self._spawn()
        except OSError as error:
            raise DataPlaneError(f"{self._binary.path} does not start: {error.strerror}") from error
        self._identity = identity(pid) or Identity(pid=pid, ticks=0, boot="")
        disk.write(self._folder / "process.json", msgspec.json.encode(self._identity))
        await self._answers()

    async def _free(self, ports: list[tuple[str, int]]) -> None:
        """The ports are free; the workers of a master that has just died take a moment to end."""
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
        """The pid of a master in a session of its own, so that what ends the router does not end it."""
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        program = [self._binary.path, "-W", "-S", f"unix@{MASTER_SOCKET},mode,600", "-f", CONFIG_FILE]
        return os.posix_spawn(
            self._binary.path,
            [*program, "-C", str(self._folder)],
            {"PATH": os.environ.get("PATH", os.defpath)},  # no token of ours in its environment
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._folder / "haproxy.log"), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    async def _answers(self) -> None:
        last: DataPlaneError | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_S):
                while self.running():
                    try:
                        await self.admin.ask("show version", wait_s=1.0)
                    except DataPlaneError as error:
                        last = error
                        await asyncio.sleep(0.01)
                        continue
                    return
        tail = (disk.read(self._folder / "haproxy.log") or b"")[-600:].decode(errors="replace").strip()
        raise DataPlaneError(f"HAProxy did not come up ({last}): {tail}")

    async def reload(self) -> None:
        """A new worker serves from the file; the old one ends its requests. A refused file changes nothing.

        Afterwards it is the new worker that answers on the runtime socket: until the old one has let go of it, a
        command may reach either.
        """
        silent = not self._binary.answers_reloads
        before = (
            parse.master_reloads(await self._master_asked("show proc", half_close=True))[0] if silent else 0
        )
        reply = await self._master_asked("reload")
        if silent:
            await self._reloaded_since(before)
        elif "Success=1" not in reply:
            raise Refused(f"HAProxy refused to reload: {reply.strip()[-600:]}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEW_WAIT_S):
                while not await self._new_answers():
                    await asyncio.sleep(0.01)
                return
        raise DataPlaneError("HAProxy was reloaded, and its former worker still answers")

    async def _reloaded_since(self, before: int) -> None:
        """The reload after `before` others was made. Raises Refused when it failed: 2.6 says so only when asked."""
        end = time.monotonic() + RELOAD_WAIT_S
        while time.monotonic() < end:
            count, failed = parse.master_reloads(await self._master_asked("show proc", half_close=True))
            if count > before and failed:
                raise Refused("HAProxy refused to reload; its log says why")
            if count > before:
                return
            await asyncio.sleep(0.01)
        raise DataPlaneError("HAProxy was told to reload and does not say whether it did")

    async def _new_answers(self) -> bool:
        try:
            new = parse.newest_worker(await self.master.ask("show proc", half_close=True))
            return new == parse.answering(await self.admin.ask("show info"))
        except DataPlaneError:  # the master starts itself anew; the old worker just closed the socket
            return False

    async def _master_asked(self, command: str, *, half_close: bool = False) -> str:
        """The master's reply. While it starts itself anew, as each reload makes it do, it refuses connections."""
        again_until = time.monotonic() + REFUSED_WAIT_S
        while True:
            try:
                return await self.master.ask(command, wait_s=RELOAD_WAIT_S, half_close=half_close)
            except DataPlaneError:
                if time.monotonic() > again_until or not self.running():
                    raise
            await asyncio.sleep(0.05)

    async def former_workers(self, ended: Container[int] = ()) -> int:
        """How many workers from before a reload still end their requests, without those that are known to have."""
        return parse.former_workers(await self.master.ask("show proc", half_close=True), ended)

    async def _gone(self, within_s: float) -> bool:
        """Whether the process has ended within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.running():
                    await asyncio.sleep(0.02)
        return not self.running()

    async def _soft_stopped(self, pid: int) -> None:
        """It refuses new connections and has no request, or is gone."""
        # Not by `shutdown frontend`: that leaves a listening socket, on which callers hang (2.8.25).
        while self.running():
            if await self._listens():
                os.kill(pid, signal.SIGUSR1)  # again and again: a master that has just started loses signals
            elif not await self._in_flight():
                return
            await asyncio.sleep(0.02)

    async def _listens(self) -> bool:
        """Whether the worker's listeners are open still: the runtime socket is one of them."""
        try:
            await self.admin.ask("show version")
        except DataPlaneError:
            return False
        return True

    async def _in_flight(self) -> int:
        """The requests that all workers have, asked by the master: a worker that stops answers nobody else."""
        count = 0
        for pid in parse.workers(await self.master.ask("show proc", half_close=True)):
            with contextlib.suppress(DataPlaneError):  # it ended in this moment
                rows = parse.stat(await self.master.ask(f"@!{pid} show stat -1 4 -1", half_close=True))
                count += sum(row.in_flight for row in rows)
        return count

    def trim_log(self) -> None:
        """HAProxy's log has a bounded size: a long one becomes `haproxy.log.1`, in place of the former one."""
        log = self._folder / "haproxy.log"
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_BYTES_AT_MOST:
                shutil.copyfile(log, log.with_name("haproxy.log.1"))  # HAProxy holds the file open: it stays
                log.with_name("haproxy.log.1").chmod(0o600)
                os.truncate(log, 0)

    async def stop(self) -> None:
        """It refuses new connections, what was in flight has ended, and the process is gone.

        What still runs after STOP_WAIT_S is cut, and the log says so.
        """
        if self._identity is None:
            self.adopt()  # one that a former router left
        if not self.running() or self._identity is None:
            return
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await self._soft_stopped(self._identity.pid)
        except (DataPlaneError, ProcessLookupError, TimeoutError) as error:
            if not await self._gone(EXIT_WAIT_S):  # while it exits it answers nobody any more
                why = str(error) or "the limit is over"
                self._log.warning("HAProxy stops with requests in flight", why=why)
        with contextlib.suppress(ProcessLookupError):  # it may end by itself at any moment
            os.kill(self._identity.pid, signal.SIGTERM)
            if not await self._gone(TERM_WAIT_S):
                os.killpg(self._identity.pid, signal.SIGKILL)
        for left in (self._folder / "process.json", *self._folder.glob("*.sock")):
            left.unlink(missing_ok=True)


def refuse_taken(host: str, port: int) -> None:
    """Raises PortTaken when somebody listens there: HAProxy itself would share the port and serve half."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port}: {error.strerror}",
                remedy=f"see who has it with `ss -ltnp 'sport = :{port}'`, or change the router in milkrun.toml",
            ) from error
