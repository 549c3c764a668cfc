"""The router's daemon: where it stands comes from the registry, its HAProxy goes on without it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path

from milkrun.consul import Address, Registry
from milkrun.router import override_key, standing
from milkrun.router.data_planes import DataPlanes
from milkrun.router.haproxy import binary, choice
from milkrun.router.haproxy.plane import HAProxy
from milkrun.router.router import Router


async def run(
    address: Address,
    *,
    name: str,
    host: str,
    state_dir: Path,
    handover: asyncio.Event,
    accept_older: bool = False,
    override_file: Path | None = None,
) -> None:
    """Runs the router `name` of the environment until cancelled (HAProxy drained and stopped) or handed over
    (HAProxy serves on, and the next router takes it over). Another front is taken over by a hitless reload.
    `override_file` has the key of override cookies.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    formers: dict[tuple[str, frozenset[str]], Router] = {}
    async with Registry(address) as registry, DataPlanes(state_dir) as planes:
        while not handover.is_set():
            front = await standing.first(registry, name, state_dir)
            key = b""
            if choice.needs_key(front.services.values()):
                key = override_key.key_at(override_file or state_dir / override_key.NAME)
            proxy = await planes.chosen(front, HAProxy(state_dir, binary.find(), front, override_key=key))
            router = Router(registry, proxy, front, host=host, state_dir=state_dir, accept_older=accept_older)
            stop = asyncio.Event()
            try:
                await router.start()
                async with asyncio.TaskGroup() as tasks:
                    others = [
                        tasks.create_task(standing.another(registry, front, stop)),
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
                    await proxy.stop()
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
