"""Reads an environment's facts from the registry, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from milkrun.consul import Registry, catalog, keys, wire
from milkrun.consul.client import decode
from milkrun.model import AgentReport, EngineReport, RouterReport, ServiceName, SyncReport
from milkrun.overview.facts import Facts, Slot, SlotHolder
from milkrun.overview.rolling import Rolling
from milkrun.settings.environment import PublishedEnvironment
from milkrun.settings.service import PublishedService

_T = TypeVar("_T")

REGISTRY_ITSELF = "consul"
OWN_PARTS = "milkrun-"


async def read(registry: Registry) -> Facts:
    """The facts of this moment. Raises RegistryUnreachable when nobody answers."""
    names, pairs = await asyncio.gather(registry.services(), registry.entries("milkrun/"))
    own = _Own(pairs)
    balancer_names = _balancers(names, own)
    applications = {ServiceName(name) for name in names} - balancer_names
    applications = {
        name for name in applications if name != REGISTRY_ITSELF and not name.startswith(OWN_PARTS)
    }
    applications |= set(own.settings) | await _with_wishes(registry)
    services = sorted(applications)
    parts = sorted(name for name in names if name.startswith(OWN_PARTS))
    balancers = sorted(balancer_names & set(names))
    wishes, health = await asyncio.gather(
        asyncio.gather(*(registry.entries(keys.wish_prefix(name)) for name in services)),
        asyncio.gather(*(registry.health(ServiceName(name)) for name in [*services, *balancers, *parts])),
    )
    found = [catalog.instances(entries) for entries, _ in health]
    return Facts(
        environment=own.environment,
        settings=own.settings,
        wishes={name: catalog.wish(name, pairs) for name, pairs in zip(services, wishes, strict=True)},
        instances=dict(zip(services, found, strict=False)),
        balancers=dict(zip(balancers, found[len(services) :], strict=False)),
        parts=[part for group in found[len(services) + len(balancers) :] for part in group],
        slots=own.slots,
        routers=own.routers,
        agents=own.agents,
        sync=own.sync,
        engines=own.engines,
        rollouts=own.rollouts,
        unreadable=own.unreadable,
    )


async def _with_wishes(registry: Registry) -> set[ServiceName]:
    """The services that gitsync wrote keys for."""
    answer = await registry.ask("GET", "/v1/kv/", params={"keys": "", "separator": "/"}, accept=(200, 404))
    if answer.status == 404:
        return set()
    folders = [key.rstrip("/") for key in decode(answer.body, list[str]) if key.endswith("/")]
    marks = await asyncio.gather(
        *(registry.get(keys.commit(ServiceName(folder))) for folder in folders if folder != "milkrun")
    )
    return {ServiceName(mark.key.partition("/")[0]) for mark in marks if mark}


def _balancers(names: Iterable[str], own: _Own) -> set[ServiceName]:
    asked = set(own.environment.settings.routers) if own.environment else set()
    return {ServiceName(name) for name in names if name in asked or name.startswith("lb-")}


class _Own:
    """The entries under `milkrun/`, decoded."""

    def __init__(self, pairs: Iterable[wire.Pair]) -> None:
        self.environment: PublishedEnvironment | None = None
        self.settings: dict[ServiceName, PublishedService] = {}
        self.slots: list[Slot] = []
        self.routers: list[RouterReport] = []
        self.agents: list[AgentReport] = []
        self.sync: SyncReport | None = None
        self.engines: list[EngineReport] = []
        self.rollouts: dict[ServiceName, Rolling] = {}
        self.unreadable: list[str] = []
        for pair in pairs:
            self._take(pair)

    def _take(self, pair: wire.Pair) -> None:
        key = pair.key
        if key == keys.ENVIRONMENT:
            self.environment = self._decoded(pair, PublishedEnvironment)
        elif key == keys.SYNC_REPORT:
            self.sync = self._decoded(pair, SyncReport)
        elif key.startswith(keys.SLOTS):
            self._take_slot(pair)
        elif key.startswith(keys.SERVICES):
            self._named(pair, PublishedService, self.settings, key.removeprefix(keys.SERVICES))
        elif key.startswith(keys.ROLLOUTS) and key.endswith("/state"):
            name = key.removeprefix(keys.ROLLOUTS).removesuffix("/state")
            self._named(pair, Rolling, self.rollouts, name)
        else:
            self._listed(pair, keys.ROUTER_REPORTS, RouterReport, self.routers)
            self._listed(pair, keys.AGENT_REPORTS, AgentReport, self.agents)
            self._listed(pair, keys.ENGINE_REPORTS, EngineReport, self.engines)

    def _named(self, pair: wire.Pair, shape: type[_T], into: dict[ServiceName, _T], name: str) -> None:
        if found := self._decoded(pair, shape):
            into[ServiceName(name)] = found

    def _listed(self, pair: wire.Pair, prefix: str, shape: type[_T], into: list[_T]) -> None:
        if pair.key.startswith(prefix) and (found := self._decoded(pair, shape)):
            into.append(found)

    def _take_slot(self, pair: wire.Pair) -> None:
        parts = pair.key.removeprefix(keys.SLOTS).split("/")
        holder = self._decoded(pair, SlotHolder) if pair.session else None
        if len(parts) == 3 and parts[2].isascii() and parts[2].isdigit() and holder:
            self.slots.append(Slot(service=parts[0], version=parts[1], number=int(parts[2]), holder=holder))

    def _decoded(self, pair: wire.Pair, shape: type[_T]) -> _T | None:
        try:
            return msgspec.json.decode(pair.data, type=shape)
        except wire.UNREADABLE:
            self.unreadable.append(pair.key)
            return None
