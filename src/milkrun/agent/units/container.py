"""A running container of this host's Docker engine, started by this agent or an earlier one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

from milkrun.agent.units import docker_answers
from milkrun.agent.units.container_log import ContainerLog
from milkrun.agent.units.docker import Engine, EngineAway
from milkrun.agent.units.listening import foreign
from milkrun.agent.units.running import Order, Watcher
from milkrun.errors import MilkrunError

KILLED_AWAIT_S = 5.0
RETRY_S = 1.0
CLEAR_S = 10.0
REMOVED = "somebody removed the container"


class Container:
    """One container, by its id or name. `seen` is what is known of it; None while the engine has not said yet.

    What is looked at is how it is, again and again, not what happened: an engine that went away and came back
    cannot have hidden an end.
    """

    identity = None

    def __init__(
        self,
        engine: Engine,
        container: str,
        order: Order,
        watcher: Watcher,
        seen: docker_answers.Container | None,
        *,
        fresh: bool = False,
    ) -> None:
        self.exited = asyncio.Event()
        self.id = container
        self.pid = seen.state.pid if seen else 0
        self._engine = engine
        self._settings = order.settings
        self._watcher = watcher
        self._signal_name = order.settings.stop.signal or (seen.config.stop_signal if seen else "") or "TERM"
        self._log = ContainerLog(engine, container, order.log, self.exited, fresh=fresh)
        self._troubles: dict[str, str] = {}
        self._tasks = [
            watcher.tasks.create_task(self._watch()),
            watcher.tasks.create_task(self._log.follow(lambda why: self._tell("log", why))),
        ]

    @property
    def trouble(self) -> str:
        """As `Running.trouble`."""
        return "; ".join(why for why in self._troubles.values() if why)

    async def stop(self, limit_s: float) -> bool:
        """As `Running.stop`."""
        await self._send(self._signal_name, limit_s)
        if await self._exits_within(limit_s):
            return True
        await self._send("SIGKILL", KILLED_AWAIT_S)
        if not await self._exits_within(KILLED_AWAIT_S):
            raise MilkrunError(
                f"container {self.id[:12]} does not end, not even by SIGKILL",
                remedy=f"docker inspect {self.id[:12]}",
            )
        return False

    async def clear(self) -> None:
        """As `Running.clear`; its log is whole. What cannot be removed in time is left to the next look at strays."""
        await self._log.drained()
        self.leave()
        with contextlib.suppress(TimeoutError, MilkrunError):
            async with asyncio.timeout(CLEAR_S):
                await self._engine.remove(self.id)
                self._log.forget()

    async def stranger(self, port: int) -> bool:
        """As `Running.stranger`. Only root sees whose a socket is; a published port the engine took itself."""
        if self._settings.docker.network != "host" or os.geteuid() != 0:
            return False
        try:
            return foreign(port, await self._engine.pids(self.id))
        except MilkrunError:
            return False

    def leave(self) -> None:
        """As `Running.leave`."""
        for task in self._tasks:
            task.cancel()

    async def _watch(self) -> None:
        while not self.exited.is_set():
            try:
                seen = await self._engine.inspect(self.id)
                self._tell("engine", "")
                if seen is None or not seen.state.running:
                    self._end(outcome(seen.state) if seen else REMOVED)
                    return
                if seen.state.pid != self.pid:
                    self.pid = seen.state.pid
                    self._watcher.on_news()
                await self._engine.ended(self.id)
            except MilkrunError as error:
                self._tell("engine", f"{error.message}; whether the container runs is not known")
                await asyncio.sleep(RETRY_S * (0.5 + random.random() / 2))

    async def _send(self, signal: str, limit_s: float) -> None:
        """It was told; MilkrunError when the engine could not be reached, or refused, for that long."""
        why: MilkrunError = EngineAway("the Docker engine does not answer")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(RETRY_S, limit_s)):
                while not self.exited.is_set():
                    try:
                        await self._engine.kill(self.id, signal)
                    except MilkrunError as error:
                        why = error
                    else:
                        return
                    await asyncio.sleep(RETRY_S * (0.25 + random.random() / 4))
        if not self.exited.is_set():
            raise why

    async def _exits_within(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.exited.wait()
        return self.exited.is_set()

    def _tell(self, what: str, why: str) -> None:
        before = self._troubles.get(what, "")
        self._troubles[what] = why
        if why != before:
            self._watcher.on_news()

    def _end(self, how: str) -> None:
        self.exited.set()
        self._watcher.on_exit(how)


def outcome(state: docker_answers.State) -> str:
    """How a container ended, for a person."""
    if state.oom_killed:
        return f"container killed: it used more memory than it may (status {state.exit_code})"
    why = f": {state.error[:200]}" if state.error else ""
    return f"container exited with status {state.exit_code}{why}"
