"""Carries out a phase of a migration for a rollout: told as it goes, and patient with a database that is away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from milkrun.consul import Registry, catalog
from milkrun.errors import Conflict, MilkrunError
from milkrun.latency import quantile_ms
from milkrun.model import RouterReport, ServiceName, VersionName
from milkrun.rollout import shares
from milkrun.rollout.calls import Result
from milkrun.rollout.git import Git
from milkrun.rollout.migrations import database, phases
from milkrun.rollout.migrations.backfill import P99, Progress, backfill
from milkrun.rollout.migrations.database import DatabaseGone
from milkrun.rollout.migrations.files import Scripts
from milkrun.rollout.migrations.lock import Held
from milkrun.rollout.migrations.phases import GateClosed
from milkrun.rollout.migrations.record import Record
from milkrun.rollout.migrations.session import Say, Session, opened
from milkrun.rollout.observed import Recent
from milkrun.rollout.plan import Plan
from milkrun.rollout.steps import Migrate
from milkrun.settings.migration import MigrationSettings, Phase

AGAIN_S = 1.0
WORK_S = 60.0
"""A try that takes longer than this has been let in: it did not only wait for a connection, or for the lock."""
CLIENTS_S = 10.0
"""The clients' latency is that of so many last seconds."""

Clients = Callable[[], list[RouterReport]]


class Rides:
    """The migrations of one engine. Files that settings name are looked for from `folder`, the environment's."""

    def __init__(self, registry: Registry, git: Git, folder: Path) -> None:
        self._registry, self._git, self._folder = registry, git, folder

    async def unsuited(
        self, service: ServiceName, version: VersionName, settings: MigrationSettings
    ) -> VersionName | None:
        """The version whose contract took away what this one needs. Raises DatabaseGone when nobody can tell."""
        if not settings.named:
            return None
        to = database.address(settings, self._folder)
        async with database.connected(to, f"milkrun/{service}/{version}"[:63]) as connection:
            return await Record(connection, service, version).unsuited()

    async def run(self, plan: Plan, step: Migrate, say: Say, clients: Clients) -> Result:
        """Whether the phase is done. While the database is away, held by somebody, or the contract's gate is closed,
        it is tried again for as long as the settings give a lock; what comes meanwhile starts that anew.
        """
        patience = _Patience(plan.migrations[step.version].settings.lock_budget_s, say)
        while True:
            began = time.monotonic()
            try:
                return await self._phase(plan, step, patience, clients)
            except (DatabaseGone, Held, GateClosed) as error:
                if isinstance(error, DatabaseGone):
                    patience.worked(time.monotonic() - began)
                if patience.over:
                    return Result(False, error.message)
                say(error.message)
            except MilkrunError as error:
                return Result(False, error.message)
            await asyncio.sleep(AGAIN_S * random.uniform(0.5, 1.5))

    async def _phase(self, plan: Plan, step: Migrate, patience: _Patience, clients: Clients) -> Result:
        migration = plan.migrations[step.version]
        settings = migration.settings
        scripts = await self._git.scripts(migration.commit, plan.service, step.version)
        if scripts.digest != migration.digest:
            raise Conflict(
                "its statements are no longer those of the plan: Alembic writes others now",
                remedy=f"have the version of Alembic that planned it, or abort and deploy {plan.service} anew",
            )
        to = database.address(settings, self._folder)
        async with opened(
            to, plan.service, step.version, settings, patience.say, rollout=plan.id, folder=self._folder
        ) as session:
            if step.phase in ("expand", "backfill", "verify") and await session.record.begun("contract"):
                return Result(True, "its contract was begun before: there is nothing left to do")
            match step.phase:
                case "expand":
                    return _counted(await phases.expand(session, scripts), scripts, "expand")
                case "backfill":
                    return await _backfill(session, scripts, patience, _latency(plan, clients))
                case "verify":
                    return await _verify(session, scripts)
                case "contract":
                    return await self._contract(session, scripts, plan, step)
                case "undo":
                    return await _undo(session, scripts, plan)
                case _:
                    assert_never(step.phase)

    async def _contract(self, session: Session, scripts: Scripts, plan: Plan, step: Migrate) -> Result:
        entries, _ = await self._registry.health(plan.service)
        found = [one.version for one in catalog.instances(entries)]
        serving = next(iter(shares.serving(plan.wish)), step.version)
        old = {name: found.count(name) for name in plan.outdated}
        done = await phases.contract(session, scripts, service=plan.service, new=serving, old=old)
        return _counted(done, scripts, "contract")


class _Patience:
    """How long what does not come on is tried again: `over` is so long after the last thing that came on."""

    def __init__(self, budget_s: float, tell: Say) -> None:
        self._budget_s, self._tell = budget_s, tell
        self._since, self._rows = time.monotonic(), -1

    def say(self, said: str) -> None:
        self._tell(said)

    def progress(self, progress: Progress) -> None:
        if progress.rows != self._rows:
            self._rows, self._since = progress.rows, time.monotonic()
        self._tell(_shown(progress))

    def worked(self, lasted_s: float) -> None:
        """A try took so long: an index, or a program, that the database was there for and then not any more."""
        if lasted_s > max(self._budget_s, WORK_S):
            self._since = time.monotonic()

    @property
    def over(self) -> bool:
        return time.monotonic() - self._since > self._budget_s


async def _backfill(session: Session, scripts: Scripts, patience: _Patience, p99_ms: P99) -> Result:
    if "backfill" in scripts.commands:
        return _counted(await phases.fill(session, scripts), scripts, "backfill")
    rows: dict[str, int] = {}

    def tell(progress: Progress) -> None:
        rows[progress.place] = progress.rows
        patience.progress(progress)

    await backfill(session, scripts.of("backfill"), tell, p99_ms)
    return Result(True, f"{sum(rows.values()):,} rows")


async def _verify(session: Session, scripts: Scripts) -> Result:
    if wrong := await phases.checked(session, scripts):
        return Result(False, "; ".join(wrong))
    by = "its command" if "verify" in scripts.commands else _count(len(scripts.of("verify").statements))
    return Result(True, f"{by} found nothing wrong")


async def _undo(session: Session, scripts: Scripts, plan: Plan) -> Result:
    """Who is taken back takes away what it brought, and nothing that was there before it. An undo that was begun has
    to end.
    """
    other = await session.record.another()
    if other and plan.strategy != "undo" and not await session.record.begun("undo"):
        return Result(True, f"{other} brought it and not this rollout: it stays")
    return _counted(await phases.undo(session, scripts), scripts, "undo")


def _counted(done: int, scripts: Scripts, phase: Phase) -> Result:
    if not done:
        return Result(True, "it was done before")
    return Result(True, "its command has ended well" if phase in scripts.commands else _count(done))


def _count(statements: int) -> str:
    return f"{statements} {'statement' if statements == 1 else 'statements'}"


def _shown(progress: Progress) -> str:
    total = f" of about {progress.total:,}" if progress.total is not None else ""
    left = f", about {progress.left_s:.0f} s left" if progress.left_s is not None else ""
    slow = f"; slowly, because {progress.why_slow}" if progress.why_slow else ""
    return f"{progress.place}: {progress.rows:,}{total} rows, {progress.rate:,.0f} a second{left}{slow}"


def _latency(plan: Plan, clients: Clients) -> P99:
    """What 99 of 100 clients of the old version waited at most in the last seconds, in milliseconds."""
    recent, version = Recent(CLIENTS_S), plan.stable

    async def ask() -> float | None:
        if version is None:
            return None
        return quantile_ms(recent.take(clients(), version, time.time()).latency, 0.99)

    return ask
