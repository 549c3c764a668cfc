"""What `milkrun migrate` shows: a version's statements, and how far they are."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from milkrun.cli.quiet import quiet_logs
from milkrun.cli.rollout_wait import read
from milkrun.consul import Registry, catalog
from milkrun.errors import Conflict, MilkrunError, NotFound
from milkrun.model import ServiceName, VersionName, version_name
from milkrun.rollout import contracting, shares
from milkrun.rollout.git import Git
from milkrun.rollout.migrations import database, files
from milkrun.rollout.migrations.lint import Finding
from milkrun.rollout.migrations.standing import PhaseStanding, standing
from milkrun.settings import deploy
from milkrun.settings.migration import Phase

if TYPE_CHECKING:
    from milkrun.cli.place import Place


class StatementView(msgspec.Struct, frozen=True, kw_only=True):
    """A statement of a phase: `how` it is run, and where it is written."""

    phase: Phase
    how: str
    file: str
    line: int
    sql: str


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """What a version does to the service's database; `findings` are what is refused in it."""

    schema_version: int = 1
    service: ServiceName
    version: VersionName
    digest: str
    statements: list[StatementView]
    findings: list[Finding]


class ContractView(msgspec.Struct, frozen=True, kw_only=True):
    """A contract that is still to come, and what is in its way as far as can be told without looking at all rows."""

    version: VersionName
    begins: str
    waits_for: list[str]


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """The phases of a service's migrations, the oldest first; `unsuited` versions do not work with the schema."""

    schema_version: int = 1
    service: ServiceName
    phases: list[PhaseStanding]
    unsuited: dict[VersionName, VersionName]
    contract: ContractView | None


async def planned(place: Place, service: ServiceName, version: str) -> PlanView:
    """The version's statements, from what git says now. Raises NotFound when it has none."""
    async with _git(place) as git:
        source = await git.files(service)
        scripts = await git.scripts(source.commit, service, version_name(version))
    if not scripts.phases:
        raise NotFound(
            f"git has no migrations/{service}/{version}/: it changes nothing in the database",
            remedy="see docs/migrations.md for what to put there",
        )
    found = []
    for phase in scripts.phases:
        script = scripts.of(phase)
        if phase in ("backfill", "verify") and phase not in scripts.commands:
            how = "by ranges of the key" if phase == "backfill" else "has to say 0"
            found += [
                StatementView(phase=phase, how=how, file=script.file, line=one.line, sql=one.text)
                for one in script.statements
            ]
        else:
            found += [
                StatementView(phase=phase, how=one.how.value, file=one.file, line=one.line, sql=one.sql)
                for one in scripts.steps(phase)
            ]
    return PlanView(
        service=service,
        version=version_name(version),
        digest=scripts.digest,
        statements=found,
        findings=await files.judged(scripts),
    )


async def looked(place: Place, service: ServiceName, registry: str) -> StatusView:
    """How far the service's migrations are."""
    quiet_logs()
    async with _git(place) as git:
        source = await git.files(service)
        settings = source.settings.migration
        serves = _most(source.base, service)
        scripts = await git.scripts(source.commit, service, serves) if serves else None
    found = await standing(database.address(settings, place.folder().path), service)
    contract = None
    done = serves and any(
        each.version == serves and each.phase == "contract" and not each.begun for each in found.phases
    )
    if serves and scripts and "contract" in scripts.phases and not done:
        async with Registry(place.address(registry)) as client:
            shelf, _ = await read(client, service)
            entries, _ = await client.health(service)
        here = [one.version for one in catalog.instances(entries)]
        waits: list[str]
        try:
            outdated = contracting.before(shelf.history, serves)
        except Conflict as error:
            waits = [error.message]
        else:
            counts = {name: here.count(name) for name in outdated}
            waits = found.closed(service, serves, outdated, counts)
        contract = ContractView(version=serves, begins=settings.contract, waits_for=waits)
    return StatusView(service=service, phases=found.phases, unsuited=found.unsuited, contract=contract)


async def serving(place: Place, service: ServiceName) -> VersionName:
    """The version with the most of the service's traffic."""
    async with _git(place) as git:
        found = _most((await git.files(service)).base, service)
    if found is None:
        raise Conflict(f"no version of {service} has traffic", remedy=f"milkrun status {service}")
    return found


def _most(base: bytes, service: ServiceName) -> VersionName | None:
    with contextlib.suppress(MilkrunError):
        found = shares.serving(deploy.parse(base, f"deploy/{service}.json"))
        return max(found, key=lambda name: found[name], default=None)
    return None


@asynccontextmanager
async def _git(place: Place) -> AsyncIterator[Git]:
    environment = place.environment()
    git = await Git.open(place.folder().path, environment.git.branch if environment else "main")
    try:
        yield git
    finally:
        await git.close()
