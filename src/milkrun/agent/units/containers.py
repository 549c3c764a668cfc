"""Instances as containers of this host's Docker engine. A container's name is its instance's id."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

import structlog

from milkrun.agent.units import docker_answers, recipe, secret_files
from milkrun.agent.units.container import Container
from milkrun.agent.units.docker import Engine, EngineRefused
from milkrun.agent.units.running import Order, Watcher
from milkrun.errors import Conflict, MilkrunError
from milkrun.host.process import Identity


class Containers:
    """`folder` is where relative paths of secrets begin, `state` the agent's folder, by which they are its own."""

    def __init__(self, engine: Engine, folder: Path, state: Path, registry: str) -> None:
        self._engine = engine
        self._folder = folder
        self._state = str(state)
        self._registry = registry
        self._log = structlog.get_logger("agent")

    async def start(self, order: Order, watcher: Watcher) -> Container:
        """As `Runner.start`."""
        secrets = secret_files.resolved(order.settings.secrets, self._folder)
        body = recipe.body(order.settings, order.place, secrets, registry=self._registry, state=self._state)
        await self._free(order.place.instance)
        made = await self._engine.create(order.place.instance, body)
        try:
            await self._engine.start(made)
        except EngineRefused:
            await self._engine.remove(made)
            raise
        return Container(self._engine, made, order, watcher, await self._engine.inspect(made), fresh=True)

    async def adopt(self, order: Order, _: Identity | None, watcher: Watcher) -> Container | None:
        """As `Runner.adopt`. Without an answer of the engine it is taken to run: its health says more."""
        name = order.place.instance
        try:
            seen = await self._engine.inspect(name)
            if seen is not None and not (seen.state.running and self._own(seen)):
                if self._own(seen):
                    await self._engine.remove(seen.id)
                seen = None
        except MilkrunError as error:
            self._log.warning("adopted unseen", instance=name, why=error.message)
            return Container(self._engine, name, order, watcher, None)
        return Container(self._engine, seen.id, order, watcher, seen) if seen else None

    async def strays(self, instances: Callable[[], AbstractSet[str]]) -> list[docker_answers.Container]:
        """This agent's containers that belong to none of these instances; none known while the engine is away."""
        found = []
        try:
            for container in await self._engine.listed([f"{recipe.STATE}={self._state}"], stopped=True):
                seen = await self._engine.inspect(container)
                # Asked after the look: a unit that began meanwhile knows its container.
                if seen and seen.labels.get(recipe.INSTANCE) not in instances():
                    found.append(seen)
        except MilkrunError:
            return []
        return found

    async def stop_stray(self, stray: docker_answers.Container, limit_s: float) -> None:
        """There is no such container: it ended by itself in time, or was killed; or the log says why it stays."""
        self._log.warning("a container of no known unit is stopped", container=stray.name.removeprefix("/"))
        try:
            await self._engine.stop(stray.id, int(limit_s))
            await self._engine.remove(stray.id)
        except MilkrunError as error:
            self._log.error("a stray container stays", why=error.message, next=error.remedy)

    async def _free(self, name: str) -> None:
        """No container has the name; one that an earlier start of ours left there is removed."""
        seen = await self._engine.inspect(name)
        if seen is None:
            return
        if not self._own(seen):
            raise Conflict(
                f"another container has the name {name}", remedy=f"docker rm {name}, if nobody needs it"
            )
        await self._engine.remove(seen.id)

    def _own(self, seen: docker_answers.Container) -> bool:
        return seen.labels.get(recipe.STATE) == self._state
