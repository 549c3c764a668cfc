"""The HAProxy process: what it is started with, reloaded, and when it has ended its requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Container
from pathlib import Path

from milkrun.errors import DataPlaneError
from milkrun.router.apart import Apart
from milkrun.router.haproxy import parse
from milkrun.router.haproxy.binary import Binary
from milkrun.router.haproxy.config import ADMIN_SOCKET, CONFIG_FILE, MASTER_SOCKET
from milkrun.router.haproxy.socket import RELOAD_WAIT_S, RuntimeSocket

REFUSED_WAIT_S = 5.0
CHECK_WAIT_S = 30.0
NEW_WAIT_S = 5.0


class Refused(DataPlaneError):
    """HAProxy would not have a new file: what serves goes on as it was. Another try is worth it after `again_s`."""

    again_s = 10.0


class Process:
    """HAProxy's master in `folder`. It outlives the router: only `stop` ends it."""

    def __init__(self, folder: Path, binary: Binary) -> None:
        self._folder = folder
        self._binary = binary
        self._apart = Apart(
            folder,
            "HAProxy",
            record="process.json",
            log="haproxy.log",
            socket=MASTER_SOCKET,
            leaves=["*.sock"],
        )
        self.admin = RuntimeSocket(folder, ADMIN_SOCKET)
        self.master = RuntimeSocket(folder, MASTER_SOCKET)

    @property
    def pid(self) -> int:
        """Which process the master is; 0 when there is none."""
        return self._apart.pid

    def running(self) -> bool:
        """Whether the master that this router started, or took over, still runs."""
        return self._apart.running()

    def adopt(self) -> bool:
        """True when the master that a former router started still runs: it is ours now, untouched."""
        return self._apart.adopt()

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
        program = [self._binary.path, "-W", "-S", f"unix@{MASTER_SOCKET},mode,600", "-f", CONFIG_FILE]
        await self._apart.start(
            [*program, "-C", str(self._folder)], ports, lambda: self.admin.ask("show version", wait_s=1.0)
        )

    async def reload(self) -> None:
        """A new worker serves from the file; the old one ends its requests. A refused file changes nothing.

        Afterwards the new worker answers all commands and has all new connections: until the old one has let go of
        its listeners, either may have any.
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
        raise DataPlaneError("HAProxy was reloaded, and its former worker still takes connections")

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
            workers = await self.master.ask("show proc", half_close=True)
            new = parse.newest_worker(workers)
            if new != parse.answering(await self.admin.ask("show info")):
                return False
            said = {
                pid: await self.master.ask(f"@!{pid} show info", half_close=True)
                for pid in parse.workers(workers)
            }
            return all(parse.stopping(info) == (pid != new) for pid, info in said.items())
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

    async def _soft_stopped(self) -> None:
        """It refuses new connections and has no request, or is gone."""
        # Not by `shutdown frontend`: that leaves a listening socket, on which callers hang (2.8.25).
        while self.running():
            if await self._listens():
                os.kill(
                    self.pid, signal.SIGUSR1
                )  # again and again: a master that has just started loses signals
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
                counted = parse.stat(await self.master.ask(f"@!{pid} show stat -1 4 -1", half_close=True))
                count += sum(counted.values())
        return count

    def trim_log(self) -> None:
        """HAProxy's log has a bounded size: a long one becomes `haproxy.log.1`, in place of the former one."""
        self._apart.trim_log()

    async def stop(self) -> None:
        """It refuses new connections, what was in flight has ended, and the process is gone, as `Apart.end` does it."""
        await self._apart.end(self._soft_stopped)
