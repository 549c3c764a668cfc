"""What a rollout has done, and what comes of it. Values only."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from milkrun.model import Wish
from milkrun.rollout.state import Commit
from milkrun.rollout.steps import Migrate
from milkrun.settings.rollout import Phase as HookPhase


class MakeCommit(msgspec.Struct, frozen=True, tag="commit"):
    """The deploy file says `wish`; `title` is the commit's. With `always` there is one also when it said so before."""

    wish: Wish
    title: str
    always: bool = False


class RunSmoke(msgspec.Struct, frozen=True, tag="smoke"):
    """Every new instance has been tested."""


class RunMigration(msgspec.Struct, frozen=True, tag="migrate"):
    """The database has gone through the step's phase."""

    step: Migrate


class RunHooks(msgspec.Struct, frozen=True, tag="hooks"):
    """The hooks of the phase have been called."""

    phase: HookPhase


Action: TypeAlias = MakeCommit | RunSmoke | RunHooks | RunMigration


class Committed(msgspec.Struct, frozen=True):
    """The commit is in the branch."""

    commit: Commit


class Tested(msgspec.Struct, frozen=True):
    """A smoke test, a hook or a phase of a migration ended."""

    good: bool
    said: str


class NotNow(msgspec.Struct, frozen=True):
    """It could not be done; nothing was changed, and it is to be tried again."""

    why: str


Outcome: TypeAlias = Committed | Tested | NotNow
