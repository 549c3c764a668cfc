"""A plan from what git says now, with the migration that the version brings."""

from __future__ import annotations

from collections.abc import Iterable

from milkrun.errors import Conflict, InputRefused, NotFound
from milkrun.model import ServiceName, VersionName
from milkrun.rollout import contracting, shares
from milkrun.rollout.git import Git, Source
from milkrun.rollout.migrating import Migration
from milkrun.rollout.migrations import files
from milkrun.rollout.plan import Kind, Plan, plan
from milkrun.rollout.receipt import Receipt, served
from milkrun.settings import deploy


async def drawn(
    git: Git,
    rollout: str,
    service: ServiceName,
    version: VersionName,
    *,
    strategy: Kind | None = None,
    replicas: int | None = None,
    history: Iterable[Receipt] = (),
) -> tuple[Plan, Source]:
    """The plan and what it was made from. `history` is what a contract and an undo look into.

    Raises Conflict when it would be no undo or there is nothing to do, InputRefused when it cannot be done or its
    migration is not safe.
    """
    source = await git.files(service)
    found: dict[VersionName, Migration] = {}
    if strategy == "undo":
        _has_served(service, version, history := list(history))
        found = await _undone(git, source, service, version, history)
    elif migration := await _migration(git, source, service, version, judged=True):
        found[version] = migration
    if strategy == "contract":
        if version not in found or "contract" not in found[version].phases:
            raise NotFound(
                f"git has no migrations/{service}/{version}/contract.sql, and no contract in a phases.toml there",
                remedy=f"milkrun migrate status {service}",
            )
        empty = Plan(
            id=rollout,
            service=service,
            version=version,
            strategy="contract",
            base=source.base.decode(),
            old={},
            replicas=None,
            steps=[],
            settings=source.settings.rollout,
        )
        return contracting.contract(empty, found[version], contracting.before(history, version)), source
    return plan(
        rollout,
        service,
        version,
        source.base,
        source.settings.rollout,
        strategy=strategy,
        replicas=replicas,
        migrations=found,
    ), source


def _has_served(service: ServiceName, version: VersionName, history: Iterable[Receipt]) -> None:
    """An undo tests and compares nothing, so it is only for a version that was found good before."""
    if version not in served(history):
        raise Conflict(
            f"{version} of {service} is not known to have served: an undo would give it all traffic without a test",
            remedy=f"milkrun deploy {service} {version}",
        )


async def _undone(
    git: Git, source: Source, service: ServiceName, version: VersionName, history: Iterable[Receipt]
) -> dict[VersionName, Migration]:
    """The migrations of those who came after the version. One that itself came after them is not for an undo: what it
    needs may have been taken away.
    """
    serving = shares.serving(deploy.parse(source.base, f"deploy/{service}.json"))
    others = [name for name in serving if name != version]
    newer = contracting.newer(history, version, others)
    if not newer.issuperset(others) and (await git.scripts(source.commit, service, version)).phases:
        raise Conflict(
            f"{version} of {service} has a migration and is not known to have come before {', '.join(others)}: that"
            " is no undo",
            remedy=f"milkrun deploy {service} {version}",
        )
    found = {name: await _migration(git, source, service, name, judged=False) for name in sorted(newer)}
    return {name: each for name, each in found.items() if each}


async def _migration(
    git: Git, source: Source, service: ServiceName, version: VersionName, *, judged: bool
) -> Migration | None:
    scripts = await git.scripts(source.commit, service, version)
    if not scripts.phases:
        return None
    settings = source.settings.migration
    if not settings.named:
        raise InputRefused(
            f"migrations/{service}/{version}/ is there, but services/{service}.toml names no database",
            remedy="say where its URL is: `url_file` or `url_env` in [migration]",
        )
    if judged and (findings := await files.judged(scripts)):
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise InputRefused(
            f"its migration is not safe: {findings[0].text}{more}",
            remedy=f"milkrun migrate plan {service} {version}",
        )
    return Migration(commit=source.commit, phases=scripts.phases, digest=scripts.digest, settings=settings)
