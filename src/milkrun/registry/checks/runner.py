"""Runs the checks: looks at each one when it is time, and writes down what changed.

The loops here only carry: when to look is decided in `rounds`, where a look may go in `reach`, what it means in
`verdict` and `alias`, and what is worth a write in `standing`. What is shown stands in the catalog, nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import NamedTuple, assert_never

import structlog

from milkrun.errors import StorageFailed
from milkrun.registry import commands, topics
from milkrun.registry.access.authority import ALL
from milkrun.registry.checks import alias, verdict
from milkrun.registry.checks.damping import Damping
from milkrun.registry.checks.definition import Alias, Grpc, Http, NotRun, Plan, Tcp, plan_of
from milkrun.registry.checks.looks import Looks
from milkrun.registry.checks.pin import Resolve, system_names
from milkrun.registry.checks.reach import Reach
from milkrun.registry.checks.rounds import Rounds
from milkrun.registry.checks.standing import Standing
from milkrun.registry.checks.verdict import Result
from milkrun.registry.engine import Engine
from milkrun.registry.nouns import CRITICAL, Check, CheckSpec
from milkrun.registry.refusal import Refused
from milkrun.registry.state import Machine
from milkrun.registry.storage import DiskFull

AT_ONCE = 256
IDLE_S = 60.0
ALIAS_EVERY_S = 0.05


class Watched(NamedTuple):
    """A check that is run, by the definition that it had when it was taken up."""

    spec: CheckSpec
    plan: Plan
    standing: Standing


class Runner:
    """Runs the checks that are registered with this registry's own node."""

    def __init__(
        self,
        engine: Engine,
        *,
        reach: Reach,
        damping: Damping | None,
        resolve: Resolve = system_names,
    ) -> None:
        self._engine = engine
        self._damping = damping
        self._looks = Looks(reach, resolve)
        self._log = structlog.get_logger("registry")
        self._rounds = Rounds(AT_ONCE)
        self._watched: dict[str, Watched] = {}
        self._still: dict[str, Watched] = {}
        """Those that follow the catalog instead of a clock."""
        self._machine: Machine | None = None
        self._again = asyncio.Event()
        self._catalog_moved = asyncio.Event()

    async def run(self) -> None:
        """Never returns: the checks are run until it is cancelled."""
        self._engine.listeners.append(self._hear)
        async with self._looks, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_catalog())
            while True:
                self._again.clear()
                self._take_changes()
                now = time.monotonic()
                for check_id in self._rounds.due(now):
                    tasks.create_task(self._look(self._watched[check_id]))
                due = self._rounds.next()
                await _heard(self._again, IDLE_S if due is None else min(IDLE_S, max(0.0, due - now)))

    async def _follow_catalog(self) -> None:
        while True:
            self._catalog_moved.clear()
            self._take_changes()
            for each in list(self._still.values()):
                await self._tell(each, await self._seen(each))
            await _heard(self._catalog_moved, IDLE_S)
            await asyncio.sleep(ALIAS_EVERY_S * random.uniform(0.5, 1.5))

    def _hear(self, touched: set[str]) -> None:
        """What a commit touched, told by the engine."""
        if topics.PROBES in touched:
            self._again.set()
            self._catalog_moved.set()
        elif self._still and not touched.isdisjoint((topics.CHECKS, topics.SERVICES, topics.NODES)):
            self._catalog_moved.set()

    def _take_changes(self) -> None:
        """What runs is what is registered. Nothing is awaited: both loops may call it."""
        machine = self._engine.machine
        moved = machine.agent.take_moved()
        restored = self._machine is not machine
        if restored:
            moved = {*self._watched, *machine.agent.specs}
        starting, self._machine = self._machine is None, machine
        for check_id in moved:
            spec, known = machine.agent.specs.get(check_id), self._watched.get(check_id)
            if spec is None or not spec.probe:
                self._drop(check_id)
            elif known is None or known.spec != spec:
                self._take_up(spec, self._own_check(spec), starting=starting)

    def _take_up(self, spec: CheckSpec, check: Check | None, *, starting: bool) -> None:
        self._drop(spec.check_id)
        try:
            plan = plan_of(spec)
        except Refused as refusal:
            plan = Plan(NotRun(f"This check's definition cannot be used: {refusal.message}"))
        # After a restart the results before it still count: one more failure alone brings nothing down.
        first = not (starting and check and check.output)
        watched = Watched(spec, plan, Standing(plan.thresholds, self._damping, first=first))
        self._watched[spec.check_id] = watched
        if isinstance(plan.look, Alias | NotRun):
            self._still[spec.check_id] = watched
        else:
            spread = random.random()
            self._rounds.follow(spec.check_id, plan.interval_s, time.monotonic(), spread)

    def _drop(self, check_id: str) -> None:
        self._watched.pop(check_id, None)
        self._still.pop(check_id, None)
        self._rounds.forget(check_id)

    async def _look(self, watched: Watched) -> None:
        check_id = watched.spec.check_id
        started = time.monotonic()
        try:
            result = await self._seen(watched)
        except Exception as error:  # noqa: BLE001  one hostile definition must not end the registry: Consul 1.8.7 does
            self._log.error("a check failed in an unforeseen way", check=check_id, exc_info=error)
            result = verdict.of_failure(
                f"this registry could not carry out the check: {type(error).__name__}"
            )
        ended = time.monotonic()
        self._rounds.done(check_id, ended, timed_out=ended - started >= watched.plan.timeout_s)
        self._again.set()
        await self._tell(watched, result)

    async def _seen(self, watched: Watched) -> Result:
        look, timeout_s = watched.plan.look, watched.plan.timeout_s
        match look:
            case Http():
                return await self._looks.http(look, self._own_address(watched.spec), timeout_s)
            case Tcp():
                return await self._looks.tcp(look, self._own_address(watched.spec), timeout_s)
            case Grpc():
                return await self._looks.grpc(look, self._own_address(watched.spec), timeout_s)
            case Alias() | NotRun():
                return self._stands(watched.spec, look)
            case _:
                assert_never(look)

    def _stands(self, spec: CheckSpec, look: Alias | NotRun) -> Result:
        machine = self._engine.machine
        if isinstance(look, Alias):
            return alias.stands(machine.catalog, machine.node, spec.check_id, look)
        check = self._own_check(spec)
        return Result(check.status if check else CRITICAL, look.why)

    async def _tell(self, watched: Watched, result: Result) -> None:
        """The result stands in the catalog, if it is worth a write and the check is still the one looked at."""
        spec = watched.spec
        check = self._own_check(spec)
        if check is None or self._engine.machine.agent.specs.get(spec.check_id) != spec:
            return
        write = watched.standing.after(result, check.status, check.output, time.monotonic())
        if write is None:
            return
        status, output = write
        try:
            await self._engine.submit(commands.ReportProbe(spec, status, output), ALL)
        except (DiskFull, StorageFailed):
            return  # The engine says so; what it could not write differs at the next look as well.
        if status != check.status:
            self._log.info(
                f"a check is {status}",
                check=spec.check_id,
                was=check.status,
                service=spec.service_id,
                why=verdict.for_log(result.headline),
            )

    def _own_check(self, spec: CheckSpec) -> Check | None:
        machine = self._engine.machine
        return machine.catalog.checks.get(machine.node, {}).get(spec.check_id)

    def _own_address(self, spec: CheckSpec) -> str:
        """The address that the service registered; without one it is the node's."""
        machine = self._engine.machine
        service = machine.catalog.services.get(machine.node, {}).get(spec.service_id)
        return (service.address if service else "") or self._engine.own.address


async def _heard(event: asyncio.Event, within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
