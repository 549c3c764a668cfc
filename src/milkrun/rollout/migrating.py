"""Where in a rollout the database is changed: around the steps that it has anyway. Pure.

The expansion comes before the first new instance, the backfill before anybody uses it, and before each share that
grows the rows are looked at. What takes away has a rollout of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from milkrun.model import CommitId, VersionName
from milkrun.rollout.steps import Migrate, Move, Smoke, Step, Versions
from milkrun.settings.migration import MigrationSettings, Phase


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """What a version asks of the service's database: `phases` are those that have something to do.

    It is read at `commit`; `digest` is another one for other scripts.
    """

    commit: CommitId
    phases: list[Phase]
    digest: str
    settings: MigrationSettings


def woven(steps: Iterable[Step], version: VersionName, migration: Migration, begun: float) -> Iterator[Step]:
    """The steps with the phases between them. `begun` is the version's share before, from 0 to 1."""
    due: list[Phase] = [phase for phase in ("expand", "backfill") if phase in migration.phases]
    share = begun
    for step in steps:
        if isinstance(step, Move):
            grown = _share(step.versions, version)
            until = 2 if grown > share else 1
            while due and ("expand", "backfill").index(due[0]) < until:
                yield Migrate(due.pop(0), version)
            if grown > share and "verify" in migration.phases:
                yield Migrate("verify", version)
            share = max(share, grown)
        elif isinstance(step, Smoke):
            while due:
                yield Migrate(due.pop(0), version)
        yield step


def undone(steps: list[Step], versions: Iterable[VersionName]) -> list[Step]:
    """The steps, and when these versions have left, their expansions are taken away."""
    last = max(number for number, step in enumerate(steps) if isinstance(step, Move))
    return [*steps[: last + 1], *(Migrate("undo", version) for version in versions), *steps[last + 1 :]]


def _share(versions: Versions, version: VersionName) -> float:
    whole = sum(each.weight or 0.0 for each in versions.values())
    mine = versions.get(version)
    return (mine.weight or 0.0) / whole if mine and whole else 0.0
