"""The guests of this host: who comes, who is told to end and who is gone, as the Docker engine says it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import structlog

from milkrun.agent.guests.guest import Guest, House, name_of
from milkrun.agent.guests.known import Known
from milkrun.agent.guests.labels import asks_to_end, offer
from milkrun.agent.units.docker import Engine, EngineAway
from milkrun.agent.units.docker_answers import Container, Happened
from milkrun.agent.units.log_frames import nanoseconds
from milkrun.errors import InputRefused, MilkrunError
from milkrun.model import InstanceId

RETRY_S = 1.0
LATE_S = 1.0
"""Events are asked for from so long before the look: what happened meanwhile is among them."""


class Hall:
    """Every event is a reason to look at its container, and every connection to the engine one to look at all.

    So it does not matter which event was missed, by an agent or an engine that was away.
    """

    def __init__(self, engine: Engine, house: House, known: Known, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._house = house
        self._known = known
        self._changed = changed
        self._address = ""
        self._guests: dict[InstanceId, Guest] = {}
        self._forgetting: set[InstanceId] = set()
        self._trouble: dict[str, str] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._following: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self._log = structlog.get_logger("guests")

    @property
    def alarms(self) -> list[str]:
        """What a person should know: containers that cannot be taken in, and an engine that is away."""
        return sorted(self._trouble.values())

    async def run(self, address: Callable[[], str | None], news: Callable[[], asyncio.Event]) -> None:
        """Never returns. `address` is where guests are reached on this host, None while there are to be none."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while True:
                changed = news()
                wanted = address()
                if wanted:
                    self._address = wanted
                    if self._following is None:
                        self._following = tasks.create_task(self._follow())
                elif self._following:
                    self._dismiss("the environment's settings ask for no guests")
                await changed.wait()

    def leave(self) -> None:
        """Every guest is on its way out of the catalog: the agent ends, and nobody would look after them."""
        self._dismiss("the agent stops")

    async def left(self) -> None:
        """No guest is there any more."""
        await self._empty.wait()

    def _dismiss(self, reason: str) -> None:
        if self._following:
            self._following.cancel()
            self._following = None
        self._trouble.clear()
        for guest in self._guests.values():
            guest.leave(reason, hurry=True)

    async def _follow(self) -> None:
        """Never returns: the engine is asked, listened to, and asked again when it was away."""
        while True:
            try:
                since = f"{time.time() - LATE_S:.9f}"
                await self._look_at_all()
                self._alarm("engine", "")
                async with contextlib.aclosing(self._engine.events(since)) as events:
                    async for event in events:
                        await self._take(event)
                raise EngineAway("the Docker engine has ended")
            except MilkrunError as error:
                now = time.monotonic()
                for guest in self._guests.values():
                    guest.unseen_since = guest.unseen_since or now
                self._alarm("engine", f"{error.message}: guests stay as they were last seen")
            await asyncio.sleep(RETRY_S * (0.5 + random.random() / 2))

    async def _look_at_all(self) -> None:
        running = set(await self._engine.listed())
        for guest in list(self._guests.values()):
            if guest.container not in running:
                guest.end("its container ended")
            guest.unseen_since = None
        self._trouble = {
            what: why for what, why in self._trouble.items() if what in running or what == "engine"
        }
        for container in sorted(running):
            if seen := await self._engine.inspect(container):
                self._look(seen)
        for instance in self._known:
            if instance not in self._guests and instance not in self._forgetting and self._tasks:
                self._forgetting.add(instance)
                self._tasks.create_task(self._forget(instance))

    async def _take(self, event: Happened) -> None:
        container = event.actor.id
        seen = await self._engine.inspect(container)
        if seen is None or not seen.state.running:
            self._end(container)
            return
        self._look(seen)
        signal = event.actor.attributes.get("signal", "")
        late = event.time_ns < nanoseconds(seen.state.started_at)  # it was told before it was started again
        if event.action == "kill" and not late and asks_to_end(signal, seen.config.stop_signal):
            for guest in self._guests.values():
                if guest.container == container:
                    guest.leave("its container is told to end")

    def _look(self, seen: Container) -> None:
        """The running container is a guest, if it offers a service."""
        if not seen.state.running or any(guest.container == seen.id for guest in self._guests.values()):
            return
        name = seen.name.removeprefix("/")
        try:
            offered = offer(seen, self._address)
            if offered is None:
                return
            instance = name_of(offered, self._house.host)
        except InputRefused as error:
            self._alarm(seen.id, f"container {name} is not registered: {error.reason}")
            return
        if instance in self._guests:
            # The one before it on this port is still being taken out: looked at again when that is done.
            return
        self._alarm(seen.id, "")
        self._begin(Guest(self._house, seen.id, offered, listed=self._known.get(instance) == seen.id), name)

    def _begin(self, guest: Guest, name: str) -> None:
        if self._tasks is None:
            raise RuntimeError("the hall does not run")
        self._known.add(guest.instance, guest.container)
        self._guests[guest.instance] = guest
        self._empty.clear()
        self._log.info("a container is taken in", instance=guest.instance, container=name)
        self._tasks.create_task(self._keep(guest))

    async def _keep(self, guest: Guest) -> None:
        removed = await guest.run()
        if removed:
            self._known.remove(guest.instance)
        del self._guests[guest.instance]
        if not self._guests:
            self._empty.set()
        with contextlib.suppress(MilkrunError):  # the next look at all sees it as well
            if self._following:
                for container in await self._engine.listed():
                    if seen := await self._engine.inspect(container):
                        self._look(seen)

    def _end(self, container: str) -> None:
        self._alarm(container, "")
        for guest in self._guests.values():
            if guest.container == container:
                guest.end("its container ended")

    async def _forget(self, instance: InstanceId) -> None:
        """An earlier agent's guest that is gone has left the catalog, unless another one came in its place."""
        while instance not in self._guests:
            try:
                await self._house.registry.deregister(instance)
            except MilkrunError:
                await asyncio.sleep(RETRY_S * (0.5 + random.random() / 2))
            else:
                self._log.info("a former guest is taken out", instance=instance)
                if instance not in self._guests:
                    self._known.remove(instance)
                break
        self._forgetting.discard(instance)

    def _alarm(self, what: str, why: str) -> None:
        before = self._trouble.get(what, "")
        if why:
            self._trouble[what] = why
        else:
            self._trouble.pop(what, None)
        if before != why:
            if why:
                self._log.warning("a guest or its engine is in trouble", why=why)
            self._changed()
