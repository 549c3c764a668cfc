"""What an engine sees of a service before it decides. Values only."""

from __future__ import annotations

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import (
    CommitId,
    Instance,
    InstanceId,
    RouterReport,
    SyncReport,
    UnitReport,
    VersionName,
    Wish,
)
from milkrun.rollout.analysis.verdict import Finding, Seen
from milkrun.settings import deploy


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The branch's last commit and what the deploy file says in it (empty when it is not there).

    `trouble` says why git could not be read: the rest is then of before.
    """

    commit: CommitId
    generation: int
    text: str
    trouble: str = ""

    def wish(self, file: str) -> Wish | None:
        """What the file asks for; None when it cannot be understood."""
        try:
            return deploy.parse(self.text.encode() or b"{}", file)
        except InputRefused:
            return None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A service, now. `recent` is what the new version did in the last seconds that guards look at; `checks` are the
    findings of numbers from elsewhere; `placed` are the instances that an agent claimed a slot for; `progress` what the
    action under way says of itself.
    """

    head: Head
    sync: SyncReport | None
    routers: list[RouterReport]
    units: list[UnitReport]
    instances: list[Instance]
    recent: Seen | None = None
    checks: list[Finding] = []
    placed: set[InstanceId] = set()
    progress: str = ""

    def healthy(self, version: VersionName) -> list[Instance]:
        """The version's instances that could serve."""
        return [one for one in self.instances if one.version == version and one.healthy]

    def running(self, version: VersionName) -> list[UnitReport]:
        """The version's instances that an agent runs, also those that are on their way out."""
        return [unit for unit in self.units if unit.version == version and unit.state != "stopped"]

    def unreported(self, version: VersionName) -> list[Instance]:
        """The version's instances that were given to an agent, and that none reports now."""
        reported = {unit.instance for unit in self.units}
        return [
            one
            for one in self.instances
            if one.version == version and one.id in self.placed and one.id not in reported
        ]

    def restarts(self, version: VersionName) -> int:
        """How often the version's instances were started again."""
        return sum(unit.restarts for unit in self.running(version))
