"""The rollout that takes away what only old versions used: no instance and no share changes. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from milkrun.errors import Conflict
from milkrun.model import VersionName
from milkrun.rollout import shares
from milkrun.rollout.migrating import Migration
from milkrun.rollout.plan import Plan, digest
from milkrun.rollout.receipt import Receipt
from milkrun.rollout.state import Phase, State
from milkrun.rollout.steps import Migrate, Record


def contract(empty: Plan, migration: Migration, outdated: list[VersionName]) -> Plan:
    """The rollout with the steps of its version's contract, after which the schema suits none of `outdated`.

    Raises Conflict while one of them has traffic.
    """
    service, version = empty.service, empty.version
    serving = shares.serving(empty.wish)
    if old := sorted({*serving} & {*outdated}):
        raise Conflict(
            f"{', '.join(old)} of {service} has traffic, and needs what the contract takes away",
            remedy=f"milkrun deploy {service} {version}",
        )
    found = msgspec.structs.replace(
        empty,
        strategy="contract",
        steps=[Migrate("contract", version), Record()],
        migrations={version: migration},
        outdated=outdated,
    )
    return msgspec.structs.replace(found, digest=digest(found))


def newer(history: Iterable[Receipt], than: VersionName, versions: Iterable[VersionName]) -> set[VersionName]:
    """Those of the versions that are known to have come after that one."""
    receipts, found = list(history), set()
    for version in versions:
        with contextlib.suppress(Conflict):
            if than in before(receipts, version):
                found.add(version)
    return found


def before(history: Iterable[Receipt], version: VersionName) -> list[VersionName]:
    """The versions that the service had before that one was rolled out. Raises Conflict when it never was."""
    found: set[VersionName] = set()
    known: set[VersionName] | None = None
    for receipt in history:
        if receipt.outcome == "refused" or receipt.strategy in ("contract", "undo"):
            continue  # neither brings a version that was not there before
        if receipt.version == version and receipt.outcome == "done":
            known = found | {*receipt.old}
        found |= {receipt.version, *receipt.old}
    if known is None:
        raise Conflict(
            f"no rollout of {version} is known that was done: it is not known whom the contract would harm",
            remedy=f"deploy {version} first",
        )
    return sorted(known - {version})


def due(state: State, now: float) -> VersionName | None:
    """The version whose contract begins by itself now, as its settings say: so long after its rollout was done."""
    plan = state.plan
    migration = plan.migrations.get(plan.version)
    if state.phase is not Phase.DONE or migration is None or plan.strategy in ("undo", "contract"):
        return None
    wait_s = migration.settings.contract_s
    if wait_s is None or "contract" not in migration.phases or now < state.ended + wait_s:
        return None
    return plan.version
