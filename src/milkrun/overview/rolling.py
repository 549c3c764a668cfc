"""What the view of an environment says of rollouts: only the part of their state that it shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from milkrun.model import EngineReport, ServiceName, VersionName

OVER = ("done", "taken-back", "left")


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    version: VersionName
    strategy: str


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    type: str = ""
    phase: str = ""
    seconds: float = 0.0


class _Paused(msgspec.Struct, frozen=True, kw_only=True):
    cause: str
    reason: str


class Rolling(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as the registry keeps it, as far as the view shows it."""

    plan: _Plan
    phase: str
    steps: list[_Step]
    index: int
    reason: str = ""
    waits_for: list[str] = []
    paused: _Paused | None = None


class RolloutLine(msgspec.Struct, frozen=True, kw_only=True):
    """A service's rollout that is under way. `held` says why it waits for a person, empty while it does not."""

    rollout: str
    version: VersionName
    strategy: str
    phase: str
    step: int
    steps: int
    waits_for: list[str]
    held: str
    reason: str


def line(rolling: Rolling | None) -> RolloutLine | None:
    """The line; None when nothing is under way."""
    if rolling is None or rolling.phase in OVER:
        return None
    return RolloutLine(
        rollout=rolling.plan.id,
        version=rolling.plan.version,
        strategy=rolling.plan.strategy,
        phase=rolling.phase,
        step=min(rolling.index + 1, len(rolling.steps)),
        steps=len(rolling.steps),
        waits_for=rolling.waits_for,
        held=rolling.paused.reason if rolling.paused else "",
        reason=rolling.reason,
    )


def needing(
    rollouts: dict[ServiceName, Rolling], engines: Iterable[EngineReport]
) -> Iterator[tuple[ServiceName, str, str]]:
    """Of which service, what needs a person, and what they should do. An empty name stands for all services."""
    reports = list(engines)
    for service, rolling in sorted(rollouts.items()):
        if rolling.phase in OVER:
            continue
        if not any(engine.acts for engine in reports):
            yield service, f"no rollout engine acts: {rolling.plan.id} stands still", "milkrun logs rollouts"
        if rolling.phase == "needs-person":
            why = "; ".join(rolling.waits_for)
            yield (
                service,
                f"{rolling.plan.id} could not be taken back: {why}",
                f"milkrun rollout why {service}, then `milkrun rollout retry {service}`",
            )
        elif rolling.paused and rolling.paused.cause != "asked":
            yield (
                service,
                f"{rolling.plan.id} is held: {rolling.paused.reason}",
                f"milkrun rollout why {service}, then `promote`, `resume` or `abort`",
            )
    for engine in reports:
        for alarm in engine.alarms:
            yield ServiceName(""), f"rollouts on {engine.host}: {alarm}", "milkrun logs rollouts shows more"
