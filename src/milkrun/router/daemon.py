"""The router's daemon: its settings, its HAProxy, its place in the registry. HAProxy goes on without it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path

import msgspec
import structlog

from milkrun.consul import Address, Registry, Watch, keys, wire
from milkrun.consul.client import decode
from milkrun.errors import MilkrunError, NotFound
from milkrun.model import host_port, service_name
from milkrun.router import disk
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.plane import HAProxy
from milkrun.router.reconcile import Reconciler
from milkrun.router.watching import Router
from milkrun.settings.environment import PublishedEnvironment, RouterSettings

SETTINGS_WAIT_S = 30.0
LOOK_AGAIN_S = 0.1


async def run(
    address: Address,
    *,
    name: str,
    host: str,
    state_dir: Path,
    handover: asyncio.Event,
    accept_older: bool = False,
) -> None:
    """Runs the router `name` of the environment until cancelled (HAProxy drained and stopped) or handed over
    (HAProxy serves on, and the next router takes it over). New settings are taken over by a hitless reload.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    formers: dict[tuple[str, str], Router] = {}
    async with Registry(address) as registry:
        while not handover.is_set():
            settings = await _settings(registry, name, state_dir)
            service = service_name(settings.service)
            listen, stats = host_port(settings.listen), host_port(settings.stats)
            plane = HAProxy(state_dir, binary.find(), service=service, listen=listen, stats=stats)
            reconciler = Reconciler(service, plane, state_dir, accept_older=accept_older)
            router = Router(registry, plane, reconciler, settings, name=name, host=host, state_dir=state_dir)
            stop = asyncio.Event()
            try:
                await plane.start(reconciler.known.state)
                async with asyncio.TaskGroup() as tasks:
                    others = [
                        tasks.create_task(_new_settings(registry, name, settings, stop)),
                        tasks.create_task(_copied(handover, stop)),
                    ]
                    formers.pop(router.presence.place, None)
                    moves = [former.presence.move_to(router.presence) for former in formers.values()]
                    others += [tasks.create_task(move) for move in moves]
                    await _until(stop, router.run())
                    for other in others:
                        other.cancel()
            finally:
                if (task := asyncio.current_task()) and task.cancelling():
                    await plane.stop()
                    await router.presence.end()
            formers[router.presence.place] = router
            accept_older = False


async def _until(event: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """`work` has run until the event, and is cancelled."""
    async with asyncio.TaskGroup() as tasks:
        worker = tasks.create_task(work)
        await event.wait()
        worker.cancel()


async def _copied(handover: asyncio.Event, stop: asyncio.Event) -> None:
    await handover.wait()
    stop.set()


async def _settings(registry: Registry, name: str, state_dir: Path) -> RouterSettings:
    """The router's settings: the registry's, or those that were last served while that does not say."""
    file = state_dir / "settings.json"
    try:
        async with asyncio.timeout(SETTINGS_WAIT_S):
            while True:
                why = "it has no environment"
                try:
                    pair = await registry.get(keys.ENVIRONMENT)
                    if pair is not None:
                        found = _of(pair.data, name)
                        disk.write(file, msgspec.json.encode(found))
                        return found
                except NotFound:
                    raise
                except MilkrunError as error:
                    why = str(error)
                if last := disk.load(file, RouterSettings):
                    log = structlog.get_logger("router")
                    log.warning("the registry gives no settings; serving the last good state", why=why)
                    return last
                await asyncio.sleep(LOOK_AGAIN_S * (0.5 + random.random()))
    except TimeoutError as error:
        raise NotFound(
            f"the registry at {registry.address.url} gives no settings after {SETTINGS_WAIT_S:.0f} s ({why})",
            remedy="start `milkrun gitsync` for the environment's repository",
        ) from error


def _of(data: bytes, name: str) -> RouterSettings:
    routers = decode(data, PublishedEnvironment).settings.routers
    if name not in routers:
        raise NotFound(
            f"the environment has no router {name!r}",
            remedy=f"it has: {', '.join(sorted(routers)) or 'none'}; add [routers.{name}] to milkrun.toml",
        )
    return routers[name]


async def _new_settings(registry: Registry, name: str, settings: RouterSettings, stop: asyncio.Event) -> None:
    """Returns when the registry has other settings for this router than these."""
    watch = Watch(registry, f"/v1/kv/{keys.ENVIRONMENT}", read=lambda body: decode(body, list[wire.Pair]))
    async for answer in watch:
        if answer.status != 200:
            continue  # no settings is no reason to stop serving
        try:
            pairs = decode(answer.body, list[wire.Pair])
            found = _of(pairs[0].data, name) if pairs else settings
        except MilkrunError as error:
            structlog.get_logger("router").warning(
                "the environment's new settings are passed over", why=str(error)
            )
            continue
        if found != settings:
            stop.set()
            return
