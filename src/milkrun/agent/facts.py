"""What the registry says, as far as the agent cares: the last good answer of each watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TypeVar

import msgspec
import structlog

from milkrun.agent import slots
from milkrun.agent.own_address import here
from milkrun.agent.plan import Holder, Slot
from milkrun.consul import Answer, Registry, Watch, catalog, keys, wire
from milkrun.consul.client import decode
from milkrun.consul.watch import watch_prefix
from milkrun.errors import InputRefused, MilkrunError
from milkrun.model import CommitMark, ServiceName, Wish, service_name, version_name
from milkrun.settings.environment import AgentSettings, PublishedEnvironment
from milkrun.settings.service import PublishedService, ServiceSettings

_T = TypeVar("_T")


class Facts:
    """Values that only grow truer: an answer that cannot be read, or none, leaves what was known.

    `news` is an event that is set at the next change; take it before you look. `older` says, by key, where the
    registry went back to an older commit than this agent has followed: that is not followed (I4).
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._log = structlog.get_logger("facts")
        self.agent: AgentSettings | None = None
        self.services: dict[ServiceName, ServiceSettings] = {}
        self.wishes: dict[ServiceName, Wish] = {}
        self.slots: dict[Slot, Holder] | None = None
        self.older: dict[str, str] = {}
        self._followed: dict[str, CommitMark] = {}
        self.news = asyncio.Event()
        self.router_news = asyncio.Event()

    def changed(self) -> None:
        """Whoever waits for news looks again."""
        self.news.set()
        self.news = asyncio.Event()

    async def follow(self, own: Callable[[], AbstractSet[ServiceName]]) -> None:
        """Never returns: all watches. `own` are the services of the units here, watched in any case."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_environment())
            tasks.create_task(self._each(watch_prefix(self._registry, keys.SERVICES), self._services))
            tasks.create_task(self._each(watch_prefix(self._registry, keys.SLOTS), self._slots))
            tasks.create_task(self._each(watch_prefix(self._registry, keys.ROUTER_REPORTS), self._routers))
            following: dict[ServiceName, asyncio.Task[None]] = {}
            while True:
                news = self.news
                asked = {*self.services, *own()}
                for name in asked - following.keys():
                    watch = watch_prefix(self._registry, keys.wish_prefix(name))
                    following[name] = tasks.create_task(self._each(watch, _Wished(self, name)))
                for name in following.keys() - asked:
                    following.pop(name).cancel()
                    self.wishes.pop(name, None)
                await news.wait()

    async def _follow_environment(self) -> None:
        async for answer in Watch(self._registry, f"/v1/kv/{keys.ENVIRONMENT}"):
            try:
                await self._environment(_pairs(answer))
            except MilkrunError as error:
                self._unusable(error)
            self.changed()

    async def _each(self, watch: Watch, take: Callable[[list[wire.Pair]], None]) -> None:
        async for answer in watch:
            try:
                take(_pairs(answer))
            except MilkrunError as error:
                self._unusable(error)
            self.changed()

    def _unusable(self, error: MilkrunError) -> None:
        self._log.error("an answer of the registry cannot be used; the last one stays", why=error.message)

    async def _environment(self, pairs: list[wire.Pair]) -> None:
        for pair in pairs:
            published = _published(pair, PublishedEnvironment)
            if self._newest(pair.key, published.mark):
                self.agent = await here(published.settings.agent, self._registry.address.url)

    def _services(self, pairs: list[wire.Pair]) -> None:
        known = {}
        for pair in pairs:
            try:
                name = service_name(pair.key.removeprefix(keys.SERVICES))
                published = _published(pair, PublishedService)
                if self._newest(pair.key, published.mark):
                    known[name] = published.settings
                elif name in self.services:
                    known[name] = self.services[name]
            except InputRefused as error:
                self._log.error("a service's settings cannot be used", key=pair.key, why=error.message)
                known |= {name: settings for name, settings in self.services.items() if _is(pair, name)}
        self.services = known

    def _slots(self, pairs: list[wire.Pair]) -> None:
        self.slots = slots.read(pairs)

    def _routers(self, _: list[wire.Pair]) -> None:
        self.router_news.set()
        self.router_news = asyncio.Event()

    def wish(self, service: ServiceName, pairs: list[wire.Pair]) -> None:
        """What git asks of the service is this. Names that are no versions are told of and left out."""
        asked = catalog.wish(service, pairs)
        if asked.mark and not self._newest(keys.commit(service), asked.mark):
            return
        versions = {}
        for name, version in asked.versions.items():
            try:
                versions[version_name(name)] = version
            except InputRefused as error:
                self._log.error("a version cannot be run", service=service, why=error.message)
        self.wishes[service] = msgspec.structs.replace(asked, versions=versions)

    def _newest(self, key: str, mark: CommitMark) -> bool:
        """Whether nothing newer was followed under the key; if so, this is what is followed from now on."""
        before = self._followed.get(key)
        if before is None or mark.generation >= before.generation:
            self._followed[key] = mark
            self.older.pop(key, None)
            return True
        why = (
            f"{key} went back from commit {before.commit[:7]} (generation {before.generation}) to "
            f"{mark.commit[:7]} (generation {mark.generation}); still doing what the newer one says"
        )
        if self.older.get(key) != why:
            self._log.error(
                "an older state is not followed", why=why, next="restart the agent if it is meant"
            )
        self.older[key] = why
        return False


class _Wished:
    """Takes one service's keys."""

    def __init__(self, facts: Facts, service: ServiceName) -> None:
        self._facts = facts
        self._service = service

    def __call__(self, pairs: list[wire.Pair]) -> None:
        self._facts.wish(self._service, pairs)


def _pairs(answer: Answer) -> list[wire.Pair]:
    return [] if answer.status == 404 else decode(answer.body, list[wire.Pair])


def _is(pair: wire.Pair, name: ServiceName) -> bool:
    return pair.key == keys.service_settings(name)


def _published(pair: wire.Pair, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(pair.data, type=shape)
    except wire.UNREADABLE as error:
        raise InputRefused(f"{pair.key}: {error}") from error
