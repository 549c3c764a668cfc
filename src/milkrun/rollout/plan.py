"""What a rollout will do: one list of steps, whatever the strategy, before anything is done. Pure.

The same settings, the same file and the same migration give the same plan, and the plan's digest says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import msgspec

from milkrun.errors import Conflict, InputRefused
from milkrun.model import VERSIONS_AT_MOST, ServiceName, VersionName, VersionWish, Wish
from milkrun.rollout import migrating, shares
from milkrun.rollout.migrating import Migration
from milkrun.rollout.steps import Analyse, Approve, Hook, Move, Pause, Smoke, Step, Versions
from milkrun.settings import deploy, rollout_steps
from milkrun.settings.deploy import REPLICAS_AT_MOST
from milkrun.settings.rollout import Phase, RolloutSettings, Strategy

Kind: TypeAlias = Strategy | Literal["undo", "contract"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout of `version` over what `base` says, the file's text when it began.

    `old` are the versions that it takes over from, with their weights; `replicas` how many new instances there are in
    the end, None when it is not git that says who runs. `migrations` are those of the versions whose migrations have
    steps; after a contract, the schema suits the versions in `outdated` no longer. `digest` is the same for the same
    steps from the same file.
    """

    id: str
    service: ServiceName
    version: VersionName
    strategy: Kind
    base: str
    old: dict[VersionName, float]
    replicas: int | None
    steps: list[Step]
    settings: RolloutSettings
    migrations: dict[VersionName, Migration] = {}
    outdated: list[VersionName] = []
    digest: str = ""

    @property
    def wish(self) -> Wish:
        """What the file said when it began."""
        return deploy.parse(self.base.encode(), f"deploy/{self.service}.json")

    @property
    def stable(self) -> VersionName | None:
        """The version that had the most of the traffic; None when nobody served."""
        return max(self.old, key=lambda name: self.old[name], default=None)


def plan(
    rollout: str,
    service: ServiceName,
    version: VersionName,
    base: bytes,
    settings: RolloutSettings,
    *,
    strategy: Kind | None = None,
    replicas: int | None = None,
    migrations: Mapping[VersionName, Migration] | None = None,
) -> Plan:
    """The steps from `base`, the deploy file's text, to all traffic for `version`. `migrations` are those of the
    versions that have one.

    Raises Conflict when there is nothing to do, InputRefused when it cannot be done.
    """
    wish = deploy.parse(base, f"deploy/{service}.json")
    old = shares.serving(wish)
    if set(old) == {version}:
        raise Conflict(
            f"{service} {version} has all the traffic already: there is nothing to roll out",
            remedy=f"milkrun status {service}",
        )
    begun = old.pop(version, 0.0)
    kind = strategy or settings.strategy
    count = _count(wish, old, version, replicas)
    draft = _Draft(wish, old, version, begun=begun, count=count, settings=settings)
    if len({*wish.versions, version}) > VERSIONS_AT_MOST:
        raise InputRefused(
            f"{service} has {VERSIONS_AT_MOST} versions, which is the most",
            remedy=f"take one without weight out of deploy/{service}.json and commit",
        )
    steps = list(draft.steps(kind))
    known = migrations or {}
    if kind == "undo":
        known = {name: each for name, each in known.items() if name in old and "undo" in each.phases}
        steps = migrating.undone(steps, sorted(known))
    else:
        known = {name: each for name, each in known.items() if name == version}
        for each in known.values():
            steps = list(migrating.woven(steps, version, each, draft.begun))
    found = Plan(
        id=rollout,
        service=service,
        version=version,
        strategy=kind,
        base=base.decode(),
        old=old,
        replicas=count,
        steps=steps,
        settings=settings,
        migrations=known,
    )
    return msgspec.structs.replace(found, digest=digest(found))


def _count(
    wish: Wish, old: Mapping[VersionName, float], version: VersionName, asked: int | None
) -> int | None:
    """How many instances of the new version: as asked, else as many as serve now; None when git runs nobody."""
    now = [each.replicas for name, each in wish.versions.items() if name in old or name == version]
    if asked is None and now and all(replicas is None for replicas in now):
        return None
    count = asked if asked is not None else max(1, sum(replicas or 0 for replicas in now))
    if not 1 <= count <= REPLICAS_AT_MOST:
        raise InputRefused(f"a rollout needs 1 to {REPLICAS_AT_MOST} new instances, not {count}")
    return count


class _Draft:
    """The file's wish, step by step."""

    def __init__(
        self,
        wish: Wish,
        old: Mapping[VersionName, float],
        version: VersionName,
        *,
        begun: float,
        count: int | None,
        settings: RolloutSettings,
    ) -> None:
        self._wish, self._old, self._version, self._count = wish, old, version, count
        self._settings = settings
        whole = sum(old.values()) + begun
        self.begun = begun / whole if whole else 0.0
        self._percent = 100 * self.begun

    def steps(self, kind: Kind) -> Iterator[Step]:
        """All of them, in order."""
        yield from self._hooks("before")
        if not self._old:
            yield from self._first()
        elif kind == "rolling":
            yield from self._rolling()
        else:
            yield Move("start the new instances", self._shared(self._percent))
            yield from self._hooks("provisioned")
            if kind == "canary":
                yield from self._canary()
            elif kind == "blue-green":
                yield Smoke()
            yield Move(f"all traffic to {self._version}", self._shared(100.0))
            yield from self._kept(undo=kind == "undo")
        yield Move("stop the old instances", self._alone())
        yield from self._hooks("done")

    def _hooks(self, phase: Phase) -> Iterator[Step]:
        if any(hook.phase == phase for hook in self._settings.hooks):
            yield Hook(phase)

    def _kept(self, *, undo: bool = False) -> Iterator[Step]:
        yield from self._hooks("promoted")
        if self._settings.bake_s and not undo:
            yield Pause(self._settings.bake_s, "bake")

    def _shared(self, percent: float) -> Versions:
        """The new version has so much of the traffic, the old ones the rest as they had it; all run."""
        weights = shares.split(self._old, self._version, percent)
        found = {
            name: msgspec.structs.replace(each, weight=weights.get(name, 0.0))
            for name, each in self._wish.versions.items()
        }
        found[self._version] = VersionWish(weight=weights[self._version], replicas=self._count)
        return found

    def _alone(self) -> Versions:
        """The new version has all; the old ones have left, those that had no traffic before stay as they were."""
        kept = {
            name: msgspec.structs.replace(each, weight=0.0)
            for name, each in self._wish.versions.items()
            if name not in self._old and name != self._version
        }
        return kept | {self._version: VersionWish(weight=100.0, replicas=self._count)}

    def _first(self) -> Iterator[Step]:
        """Nobody serves yet: there is nothing to compare with and nobody to go back to."""
        yield Move("start the instances", self._alone())
        yield from self._hooks("provisioned")
        yield Smoke()
        yield from self._kept()

    def _canary(self) -> Iterator[Step]:
        percent = self._percent
        for step in self._settings.canary:
            match step:
                case rollout_steps.Smoke():
                    yield Smoke()
                case rollout_steps.Weight():
                    if step.percent > percent:
                        percent = step.percent
                        yield Move(f"weight {percent:g}%", self._shared(percent))
                case rollout_steps.Analyse():
                    yield Analyse(step.seconds)
                case rollout_steps.Ramp():
                    while percent < step.percent:
                        percent = round(min(step.percent, percent + step.by), 2)
                        yield Move(f"weight {percent:g}%", self._shared(percent))
                        yield Pause(step.every_s, "watch")
                case rollout_steps.Pause():
                    yield Pause(step.seconds)
                case rollout_steps.Approve():
                    yield Approve(step.limit_s)

    def _rolling(self) -> Iterator[Step]:
        """`batch` at a time: with `surge` the new ones are there before the old ones leave, else after."""
        settings, count = self._settings, self._count
        if count is None:
            raise InputRefused(
                "a rolling rollout needs `replicas`: it replaces some instances at a time",
                remedy="add them to the deploy file and commit, or use --strategy blue-green",
            )
        fleet = shares.Fleet(self._wish, self._old, self._version)
        tested = False
        while (left := count - fleet.new) > 0:
            size = min(settings.batch, max(settings.surge, settings.unavailable), left)
            last = size == left
            if size > settings.surge:
                fleet = fleet.without(size, all_of_them=last)
            fleet = fleet.started(size)
            yield Move(f"start {fleet.new} of {count}", fleet.versions())
            if not tested:
                yield from self._hooks("provisioned")
                yield Smoke()
                tested = True
            fleet = fleet.shifted()
            if size <= settings.surge:
                fleet = fleet.without(size, all_of_them=last)
            yield Move(f"{fleet.new} of {count} serve", fleet.versions())
        yield from self._kept()


def digest(found: Plan) -> str:
    """Twelve letters that are others for other steps, another file, other settings or another migration."""
    scripts = {name: (each.phases, each.digest, each.settings) for name, each in found.migrations.items()}
    parts = (found.service, found.version, found.strategy, found.base, found.steps, found.settings, scripts)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:12]
