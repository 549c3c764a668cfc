"""The router's daemon: where it stands comes from the registry, its HAProxy goes on without it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from pathlib import Path
from typing import NamedTuple

from milkrun.consul import Address, Registry
from milkrun.router import override_key, standing
from milkrun.router.certificates import Certificates
from milkrun.router.data_planes import DataPlanes
from milkrun.router.front import Front
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
    folder: Path = Path(),
    override_file: Path | None = None,
) -> None:
    """Runs the router `name` of the environment until cancelled (HAProxy drained and stopped) or handed over
    (HAProxy serves on, and the next router takes it over). Another front is taken over by a hitless reload.
    What the environment's files name on this host is looked for in `folder`. `override_file` has the key of override
    cookies.
    """
    gc.freeze()  # the code that is loaded is no garbage: to look through it, too, held a change up for 18 ms
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    formers: dict[tuple[str, frozenset[str]], Router] = {}
    async with Registry(address) as registry, DataPlanes(state_dir) as planes:
        make = _Maker(
            registry, planes, host, state_dir, folder, override_file or state_dir / override_key.NAME
        )
        while not handover.is_set():
            front = await _where(registry, name, make)
            router = await make.router(front, accept_older=accept_older)
            await _stands(router, front, registry, formers, handover)
            formers[router.presence.place] = router
            accept_older = False


async def _where(registry: Registry, name: str, make: _Maker) -> Front:
    """Where the router stands now. Cancelled before that is known, what a former router left has ended."""
    try:
        return await standing.first(registry, name, make.state_dir)
    except asyncio.CancelledError:
        # It must not serve on alone: nobody would stop it any more.
        if last := standing.last(make.state_dir):
            await (await make.router(last)).end()
        raise


async def _stands(
    router: Router,
    front: Front,
    registry: Registry,
    formers: dict[tuple[str, frozenset[str]], Router],
    handover: asyncio.Event,
) -> None:
    """The router has worked at this front, until there is another one or the hand-over. Cancelled, it has ended.

    What the `formers` said in the registry is moved to where this one is.
    """
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
        router.release()
        if (task := asyncio.current_task()) and task.cancelling():
            await router.end()


class _Maker(NamedTuple):
    """Makes the router for a front, with what of it lies on this host."""

    registry: Registry
    planes: DataPlanes
    host: str
    state_dir: Path
    folder: Path
    override_file: Path

    async def router(self, front: Front, *, accept_older: bool = False) -> Router:
        certificates = None
        if front.certificates:
            certificates = Certificates(self.folder / front.certificates, self.state_dir / "certificates")
            certificates.look_first()
        key = b""
        if choice.needs_key(front.services.values()):
            key = override_key.key_at(self.override_file)
        haproxy = HAProxy(self.state_dir, binary.find(), front, certificates, override_key=key)
        return Router(
            self.registry,
            await self.planes.chosen(front, haproxy),
            front,
            host=self.host,
            state_dir=self.state_dir,
            accept_older=accept_older,
            certificates=certificates,
        )


async def _until(event: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """`work` has run until the event, and is cancelled."""
    async with asyncio.TaskGroup() as tasks:
        worker = tasks.create_task(work)
        await event.wait()
        worker.cancel()


async def _copied(handover: asyncio.Event, stop: asyncio.Event) -> None:
    await handover.wait()
    stop.set()
