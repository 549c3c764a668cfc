"""The steps of a rollout. Values only.

A `Move` is a commit of the deploy file; all else looks at what the moves before it brought about, or changes the
service's database.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from milkrun.model import VersionName, VersionWish
from milkrun.settings import rollout_steps
from milkrun.settings.migration import Phase as MigrationPhase
from milkrun.settings.rollout import Phase

Versions: TypeAlias = dict[VersionName, VersionWish]


class Move(msgspec.Struct, frozen=True, tag="move"):
    """The deploy file says `versions`. It is done when every live router serves that, the instances asked for are
    healthy, and those no longer asked for have been drained and stopped.
    """

    name: str
    versions: Versions


class Smoke(msgspec.Struct, frozen=True, tag="smoke"):
    """Each new instance has passed the tests that need no user."""

    name: str = "smoke"


class Hook(msgspec.Struct, frozen=True, tag="hook"):
    """The hooks of a phase have been called."""

    phase: Phase

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"hooks: {self.phase}"


class Analyse(msgspec.Struct, frozen=True, tag="analyse"):
    """The versions were compared over at least `seconds`, and the new one is not worse."""

    seconds: float

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"analyse {rollout_steps.time(self.seconds)}"


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """`seconds` have passed since the step began, or somebody resumed (0: only that)."""

    seconds: float
    name: str = "pause"


class Approve(msgspec.Struct, frozen=True, tag="approve"):
    """Somebody has approved; after `limit_s` (0: never) it counts as rejected."""

    limit_s: float
    name: str = "approve"


class Migrate(msgspec.Struct, frozen=True, tag="migrate"):
    """The database of the service has gone through a phase of the version's migration."""

    phase: MigrationPhase
    version: VersionName

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.phase} the database for {self.version}"


class Record(msgspec.Struct, frozen=True, tag="record"):
    """A commit tells of what was done; the deploy file says what it said."""

    name: str = "record"


Step: TypeAlias = Move | Smoke | Hook | Analyse | Pause | Approve | Migrate | Record
