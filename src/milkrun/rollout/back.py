"""How a rollout is taken back, from wherever it stands. Pure.

Traffic goes back in one commit. Only when a version that is to have it again has nobody left, it is started first; and
only when it has its traffic back, the new instances are stopped, and then the schema is as it was, where the migration
has a script for that.
"""

from __future__ import annotations

import msgspec

from milkrun.model import VersionName, VersionWish, Wish
from milkrun.rollout.plan import Plan
from milkrun.rollout.steps import Hook, Migrate, Move, Step, Versions

WARM = "start the old instances again"
BACK = "traffic back to the old instances"
BEFORE = "as it was before"


def steps(plan: Plan, now: Wish) -> list[Step]:
    """From what the deploy file says now to what it said when the rollout began."""
    base = plan.wish
    found: list[Step] = []
    if plan.old:
        if _cold(plan, now):
            found.append(Move(WARM, _warm(plan, now)))
        back = _back(plan, now)
        if back != base.versions:
            found.append(Move(BACK, back))
    found.append(Move(BEFORE, dict(base.versions)))
    mine = plan.migrations.get(plan.version)
    if plan.strategy not in ("undo", "contract") and mine and "undo" in mine.phases:
        found.append(Migrate("undo", plan.version))
    if any(hook.phase == "taken-back" for hook in plan.settings.hooks):
        found.append(Hook("taken-back"))
    return found


def _cold(plan: Plan, now: Wish) -> bool:
    """Whether a version that is to have traffic again is asked to have no instance."""
    return any(_replicas(plan.wish, name) and not _replicas(now, name) for name in plan.old)


def _replicas(wish: Wish, name: VersionName) -> int:
    return (wish.versions.get(name) or VersionWish()).replicas or 0


def _warm(plan: Plan, now: Wish) -> Versions:
    """The traffic as it is; the old versions have all their instances."""
    found = dict(now.versions)
    for name in plan.old:
        weight = now.versions[name].weight if name in now.versions else 0.0
        found[name] = VersionWish(weight=weight or 0.0, replicas=plan.wish.versions[name].replicas)
    return found


def _back(plan: Plan, now: Wish) -> Versions:
    """The traffic as it was; the new instances still run."""
    found = dict(plan.wish.versions)
    if (
        not plan.wish.weights
    ):  # a weight of zero for one version takes all traffic from those without a weight
        for name, weight in plan.old.items():
            found[name] = msgspec.structs.replace(found[name], weight=weight)
    begun = plan.wish.versions.get(plan.version, VersionWish())
    running = now.versions.get(plan.version, VersionWish())
    if plan.version in now.versions:
        weight = begun.weight or 0.0
        if not plan.wish.weights:
            weight = float(begun.replicas or 0)
        found[plan.version] = VersionWish(weight=weight, replicas=running.replicas)
    return found
