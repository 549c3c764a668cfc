"""Where a router should stand, from the environment's published files: at its start, and when that changes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import structlog

from milkrun.consul import Registry, Watch, keys, wire
from milkrun.consul.client import decode
from milkrun.consul.watch import watch_prefix
from milkrun.errors import MilkrunError, NotFound
from milkrun.model import ServiceName
from milkrun.router import disk
from milkrun.router.front import Front, front
from milkrun.settings.environment import PublishedEnvironment, RouterSettings
from milkrun.settings.service import PublishedService, ServiceSettings

SETTINGS_WAIT_S = 30.0
LOOK_AGAIN_S = 0.1
_FILE = "front.json"
SETTLED_S = 0.2
"""A commit that changes several files comes as several changes: they make one reload."""
SETTLED_AT_MOST_S = 2.0


async def first(registry: Registry, name: str, state_dir: Path) -> Front:
    """The router's front: the registry's, or the one that was last served while that does not say."""
    file = state_dir / _FILE
    why = "it has no environment"
    try:
        async with asyncio.timeout(SETTINGS_WAIT_S):
            while True:
                known = last(state_dir)
                try:
                    if (found := await _published(registry, name)) and not _lost(found, known):
                        disk.write(file, msgspec.json.encode(found))
                        return found
                except NotFound:
                    raise
                except MilkrunError as error:
                    why = str(error)
                if known:
                    log = structlog.get_logger("router")
                    log.warning("the registry gives no settings; serving the last good state", why=why)
                    return known
                await asyncio.sleep(LOOK_AGAIN_S * (0.5 + random.random()))
    except TimeoutError as error:
        raise NotFound(
            f"the registry at {registry.address.url} gives no settings after {SETTINGS_WAIT_S:.0f} s ({why})",
            remedy="start `milkrun gitsync` for the environment's repository",
        ) from error


async def _published(registry: Registry, name: str) -> Front | None:
    pair = await registry.get(keys.ENVIRONMENT)
    if pair is None:
        return None
    return front(name, _of(pair.data, name), _services(await registry.entries(keys.SERVICES)))


def _lost(found: Front, last: Front | None) -> bool:
    """Whether a sidecar would stand before nothing where it stood before something: empty is not truth (I2)."""
    return last is not None and not found.services and bool(last.services)


def last(state_dir: Path) -> Front | None:
    """The front that was last served."""
    return disk.load(state_dir / _FILE, Front)


async def another(registry: Registry, now: Front, stop: asyncio.Event) -> None:
    """`stop` is set when the registry has another front for this router than this one."""
    known = _Known(now)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_environment(registry, known))
        tasks.create_task(_files(registry, known))
        tasks.create_task(_settled(known, stop))


class _Known:
    """What the two watches saw last."""

    def __init__(self, now: Front) -> None:
        self._now = now
        self.settings: RouterSettings | None = None
        self.services: dict[ServiceName, ServiceSettings] | None = None
        self.changed = asyncio.Event()

    @property
    def name(self) -> str:
        return self._now.name

    def is_other(self) -> bool:
        """Whether both are known, and make another front."""
        if self.settings is None or self.services is None:
            return False
        found = front(self.name, self.settings, self.services)
        return found != self._now and not _lost(found, self._now)

    def see(self, what: Callable[[], None]) -> None:
        """What cannot be read is no reason to stop serving."""
        try:
            what()
        except MilkrunError as error:
            structlog.get_logger("router").warning(
                "the environment's new settings are passed over", why=str(error)
            )
        else:
            self.changed.set()


async def _environment(registry: Registry, known: _Known) -> None:
    watch = Watch(registry, f"/v1/kv/{keys.ENVIRONMENT}", read=lambda body: decode(body, list[wire.Pair]))
    async for answer in watch:
        if answer.status == 200 and (pairs := decode(answer.body, list[wire.Pair])):

            def see(data: bytes = pairs[0].data) -> None:
                known.settings = _of(data, known.name)

            known.see(see)


async def _files(registry: Registry, known: _Known) -> None:
    async for answer in watch_prefix(registry, keys.SERVICES):
        if answer.status == 200:
            known.services = _services(decode(answer.body, list[wire.Pair]))
            known.changed.set()
        elif known.services is None:  # none is published yet; services that were there do not vanish at once
            known.services = {}
            known.changed.set()


async def _settled(known: _Known, stop: asyncio.Event) -> None:
    while True:
        await known.changed.wait()
        await _calm(known.changed)
        if known.is_other():
            stop.set()


async def _calm(changed: asyncio.Event) -> None:
    """There was no news for a while, or it does not end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLED_AT_MOST_S):
            while True:
                changed.clear()
                try:
                    async with asyncio.timeout(SETTLED_S):
                        await changed.wait()
                except TimeoutError:
                    return


def _of(data: bytes, name: str) -> RouterSettings:
    routers = decode(data, PublishedEnvironment).settings.routers
    if name not in routers:
        raise NotFound(
            f"the environment has no router {name!r}",
            remedy=f"it has: {', '.join(sorted(routers)) or 'none'}; add [routers.{name}] to milkrun.toml",
        )
    return routers[name]


def _services(pairs: Iterable[wire.Pair]) -> dict[ServiceName, ServiceSettings]:
    """The services by name; one whose settings cannot be read is left out, and said."""
    found: dict[ServiceName, ServiceSettings] = {}
    for pair in pairs:
        name = ServiceName(pair.key.removeprefix(keys.SERVICES))
        try:
            found[name] = decode(pair.data, PublishedService).settings
        except MilkrunError as error:
            structlog.get_logger("router").warning(
                "a service's settings are passed over", service=name, why=str(error)
            )
    return found
