"""The rollout engine: one of them acts, by a lock; the others stand by."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path

import msgspec
import structlog

from milkrun.consul import Address, Registry, keys, wire
from milkrun.consul.client import decode
from milkrun.consul.presence import Presence, component
from milkrun.consul.watch import watch_prefix
from milkrun.errors import Conflict, MilkrunError
from milkrun.model import AgentReport, EngineReport, RouterReport, ServiceName, SyncReport
from milkrun.rollout import contracting, opening
from milkrun.rollout.calls import Calls
from milkrun.rollout.git import Git
from milkrun.rollout.migrations.rides import Rides
from milkrun.rollout.pilot import Pilot, Scene, Site
from milkrun.rollout.push import Pusher
from milkrun.rollout.state import Intent
from milkrun.rollout.store import Shelf, Store, next_epoch, shelves

LOCK_S = 1.0
"""How often a standby asks for the lock."""
AFTER_FAULT_S = 5.0


async def run(
    address: Address, *, repository: Path, branch: str, push: str, state_dir: Path, host: str
) -> None:
    """Rolls out what is asked for, until cancelled. Rollouts under way go on with the next engine."""
    state_dir.mkdir(parents=True, exist_ok=True)
    git = await Git.open(repository, branch)
    calls = Calls(repository)
    try:
        async with Registry(address) as registry:
            rides = Rides(registry, git, repository)
            await Engine(
                registry,
                git,
                calls=calls,
                rides=rides,
                pusher=Pusher(git, push),
                state_dir=state_dir,
                host=host,
            ).run()
    finally:
        await calls.close()
        await git.close()


class Engine:
    """Stands by until the lock is its own, then flies every rollout there is."""

    def __init__(
        self,
        registry: Registry,
        git: Git,
        *,
        calls: Calls,
        rides: Rides,
        pusher: Pusher,
        state_dir: Path,
        host: str,
    ) -> None:
        self._registry, self._git, self._calls, self._pusher = registry, git, calls, pusher
        self._rides = rides
        self._host = host
        self._presence = Presence(
            registry, component("milkrun-rollouts", host, "", 0), [keys.engine_report(host)], state_dir
        )
        self._scene = Scene()
        self._shelves: dict[ServiceName, Shelf] = {}
        self._news = asyncio.Event()
        self._seen = asyncio.Event()
        self._pilots: dict[ServiceName, Pilot] = {}
        self._acts, self._epoch = False, 0
        self._log = structlog.get_logger("rollouts").bind(host=host)

    async def run(self) -> None:
        """Never returns."""
        self._report(acts=False)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._presence.run())
                tasks.create_task(self._git.follow())
                tasks.create_task(self._pusher.run(self._pushed))
                tasks.create_task(self._watch())
                tasks.create_task(self._serve(tasks))
        finally:
            await self._presence.end()

    def _report(self, *, acts: bool, epoch: int = 0) -> None:
        alarms = [alarm for alarm in (self._git.trouble, self._pusher.trouble) if alarm]
        report = EngineReport(host=self._host, acts=acts, epoch=epoch, alarms=alarms)
        self._presence.publish(keys.engine_report(self._host), report)
        self._acts, self._epoch = acts, epoch

    def _pushed(self) -> None:
        self._report(acts=self._acts, epoch=self._epoch)

    async def _watch(self) -> None:
        """Never returns: the scene is what the registry says."""
        async for answer in watch_prefix(self._registry, "milkrun/"):
            pairs = decode(answer.body, list[wire.Pair]) if answer.status == 200 else []
            self._scene, self._shelves = _scene(pairs)
            self._seen.set()
            self._wake()

    def _wake(self) -> None:
        """Whoever waits for news looks again; who waits from now on, waits for the next."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    # Who acts

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            session = self._presence.session.id
            try:
                if session and await self._registry.put(
                    keys.ENGINE_LOCK, self._host.encode(), acquire=session
                ):
                    await self._act(session, tasks)
            except* MilkrunError as group:
                self._log.warning("does not act", why=_first(group).message)
            self._report(acts=False)
            await asyncio.sleep(LOCK_S * (0.5 + random.random()))

    async def _act(self, session: str, tasks: asyncio.TaskGroup) -> None:
        """Flies the rollouts while the lock is the session's. Raises Conflict when it no longer is."""
        epoch = await next_epoch(self._registry, session)
        self._log.info("acts", epoch=epoch)
        self._report(acts=True, epoch=epoch)
        self._pusher.wake()  # the engine before may have died with commits that no remote has
        site = Site(
            registry=self._registry,
            store=Store(self._registry, session),
            git=self._git,
            calls=self._calls,
            rides=self._rides,
            epoch=epoch,
            scene=lambda: self._scene,
            news=lambda: self._news,
            told=lambda urls, about: self._tell(tasks, urls, about),
            pushed=self._pusher.wake,
        )
        async with asyncio.TaskGroup() as flights:
            while self._presence.session.id == session and self._presence.session.safe:
                news = self._news
                await self._open(site, flights)
                await _or_later(news.wait(), LOCK_S)
            raise Conflict("its session is gone, and so is the lock")

    async def _open(self, site: Site, flights: asyncio.TaskGroup) -> None:
        """Every rollout that is under way is flown, and what waits to begin has begun or was refused."""
        await self._seen.wait()
        for service, shelf in self._shelves.items():
            if service in self._pilots:
                continue
            await self._contract(service, shelf)
            waiting = any(intent.verb == "start" for intent in shelf.intents.values())
            if (shelf.state is None or shelf.state.over) and not waiting:
                continue
            begun = await opening.opened(site, service)  # the watch may be a moment behind a rollout's end
            if begun.state and not begun.state.over:
                self._pilots[service] = pilot = Pilot(site, begun)
                flights.create_task(self._fly(pilot))

    async def _contract(self, service: ServiceName, shelf: Shelf) -> None:
        """A contract whose time has come is asked for, as a person would ask for it."""
        version = contracting.due(shelf.state, time.time()) if shelf.state else None
        if version and not shelf.intents:
            wanted = Intent(
                id="contract",
                verb="start",
                by="milkrun",
                at=time.time(),
                rollout=f"{service}-{version}-contract-{secrets.token_hex(3)}",
                version=version,
                strategy="contract",
            )
            await self._registry.put(
                f"{keys.rollout_intents(service)}{wanted.id}", msgspec.json.encode(wanted)
            )

    async def _fly(self, pilot: Pilot) -> None:
        """One rollout that hits a fault of ours stops no other one: it is taken up again a little later."""
        try:
            await pilot.run()
        except ExceptionGroup as group:
            if group.split(Conflict)[0]:
                raise
            self._log.exception(
                "a rollout hit a fault in milkrun itself; it is tried again", service=pilot.service
            )
            await asyncio.sleep(AFTER_FAULT_S)
        finally:
            self._pilots.pop(pilot.service, None)
            self._wake()

    def _tell(self, tasks: asyncio.TaskGroup, urls: list[str], about: dict[str, object]) -> None:
        if urls:
            tasks.create_task(self._calls.tell(urls, about))


async def _or_later(wait: Coroutine[object, object, object], limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await wait
    except TimeoutError:
        return


def _scene(pairs: list[wire.Pair]) -> tuple[Scene, dict[ServiceName, Shelf]]:
    routers: dict[ServiceName, list[RouterReport]] = {}
    agents: list[AgentReport] = []
    sync: SyncReport | None = None
    for pair in pairs:
        try:
            if pair.key.startswith(keys.ROUTER_REPORTS):
                report = msgspec.json.decode(pair.data, type=RouterReport)
                routers.setdefault(report.service, []).append(report)
            elif pair.key.startswith(keys.AGENT_REPORTS):
                agents.append(msgspec.json.decode(pair.data, type=AgentReport))
            elif pair.key == keys.SYNC_REPORT:
                sync = msgspec.json.decode(pair.data, type=SyncReport)
        except wire.UNREADABLE:
            continue  # another version's: who wrote it says so
    found = shelves(pair for pair in pairs if pair.key.startswith(keys.ROLLOUTS))
    intents: dict[ServiceName, dict[str, Intent]] = {name: shelf.intents for name, shelf in found.items()}
    return Scene(routers=routers, agents=agents, sync=sync, intents=intents), found


def _first(group: BaseExceptionGroup[MilkrunError]) -> MilkrunError:
    """The error that speaks for all of them."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
