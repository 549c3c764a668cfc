"""The database of a rollout's small world: what its schema is, and what nobody may do on it."""

from __future__ import annotations

import random

from milkrun.model import CommitId, VersionName
from milkrun.rollout.actions import Tested
from milkrun.rollout.migrating import Migration
from milkrun.rollout.steps import Migrate
from milkrun.settings.migration import MigrationSettings, Phase

STATEMENTS = 3
"""So many statements has an expansion, and so many batches a backfill."""


class Database:
    """The old version works on any of its schemas; the new one needs the whole expansion, and its users the backfill.

    An engine dies in the middle of a phase as it does anywhere; `bad` is a phase that fails.
    """

    def __init__(self, seed: int, *, bad: Phase | None = None, undo: bool = True) -> None:
        self.random = random.Random(seed)
        self.bad, self.expanded, self.filled = bad, 0, 0
        self.verified = False
        phases: list[Phase] = ["expand", "backfill", "verify", "contract"]
        self.migration = Migration(
            commit=CommitId(""),
            phases=[*phases, "undo"] if undo else phases,
            digest="",
            settings=MigrationSettings(url_env="URL"),
        )

    def carry_out(self, step: Migrate, new: VersionName, *, running: int, dies: float) -> Tested | None:
        """What came of it; None when its engine died of it, with some of it done."""
        assert step.version == new
        if step.phase == self.bad:
            return Tested(False, f"{step.phase} failed")
        match step.phase:
            case "expand":
                while self.expanded < STATEMENTS:
                    if self.random.random() < dies:
                        return None
                    self.expanded += 1
            case "backfill":
                assert self.expanded == STATEMENTS, "a backfill of columns that are not there"
                while self.filled < STATEMENTS:
                    if self.random.random() < dies:
                        return None
                    self.filled += 1
            case "verify":
                self.verified = self.filled == STATEMENTS
                return Tested(self.verified, "verified")
            case "undo":
                assert not running, "the schema is undone under instances that need it"
                self.filled = 0
                while self.expanded:
                    if self.random.random() < dies:
                        return None
                    self.expanded -= 1
            case "contract":
                raise AssertionError("the contract is never in the rollout of its expansion")
        return Tested(True, step.phase)

    def judge(self, *, running: int, share: float) -> None:
        """What must never be seen."""
        assert not running or self.expanded == STATEMENTS, "an instance without the columns that it needs"
        assert not share or self.verified, "users on rows that nobody looked at"
