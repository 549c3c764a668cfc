"""What a person or a script wants to know of a rollout. Pure.

`RolloutView` is the object of `milkrun rollout status --json`; its `schema_version` grows when a field changes its
meaning.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from milkrun.model import SHARE_SLOTS, RouterReport, UnitReport, VersionName
from milkrun.rollout import queue, receipt
from milkrun.rollout.receipt import Receipt
from milkrun.rollout.state import Entry, Intent, Phase, Said, State
from milkrun.rollout.steps import Analyse, Approve, Pause, Step


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """One step: `state` is done, now, next or skipped; `verdict` the last one given in it, if any."""

    name: str
    kind: str
    state: str
    verdict: str = ""


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """One of its versions. `wanted` is its share in git, `served` the routers' mean, `observed` that of the requests
    since the shares last changed; all are fractions of 1.
    """

    version: VersionName
    role: str
    wanted: float
    served: float | None
    observed: float | None
    requests: int
    failures: int
    instances: list[str]


class QueuedView(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that waits for its turn, since `at` (seconds since 1970)."""

    rollout: str
    version: str
    strategy: str
    by: str
    at: float
    reason: str


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it stands. `left_s` is how long its waits still take at least, None where a person decides; `queue`
    are the rollouts behind it, the next one first.
    """

    schema_version: int = 1
    rollout: str
    service: str
    version: VersionName
    strategy: str
    phase: Phase
    by: str
    digest: str
    started: float
    step: int
    steps: list[StepView]
    versions: list[VersionView]
    waits_for: list[str]
    needs: int
    paused: str
    cause: str
    reason: str
    commit: str | None
    epoch: int
    left_s: float | None
    verdicts: list[Said]
    receipt: Receipt
    queue: list[QueuedView]


def view(
    state: State,
    routers: Iterable[RouterReport],
    units: Iterable[UnitReport],
    now: float,
    intents: Iterable[Intent] = (),
) -> RolloutView:
    """The view of a rollout at `now` (seconds since 1970). Of the `intents` those show that wait for its end."""
    plan = state.plan
    return RolloutView(
        rollout=plan.id,
        service=plan.service,
        version=plan.version,
        strategy=plan.strategy,
        phase=state.phase,
        by=state.by,
        digest=plan.digest,
        started=state.started,
        step=min(state.index + 1, len(state.steps)),
        steps=[_step(state, number, step) for number, step in enumerate(state.steps)],
        versions=_versions(state, list(routers), list(units)),
        waits_for=[f"to be done: {state.doing}"] if state.doing and not state.waits_for else state.waits_for,
        needs=state.needs,
        paused=state.paused.reason if state.paused else "",
        cause=state.paused.cause.value if state.paused else "",
        reason=state.reason,
        commit=state.commits[-1] if state.commits else None,
        epoch=state.epoch,
        left_s=_left_s(state, now),
        verdicts=state.verdicts,
        receipt=receipt.receipt(state, now),
        queue=[
            QueuedView(
                rollout=intent.rollout,
                version=intent.version,
                strategy=intent.strategy or "",
                by=intent.by,
                at=intent.at,
                reason=intent.reason,
            )
            for intent in queue.waiting(intents, state)
        ],
    )


def _step(state: State, number: int, step: Step) -> StepView:
    if state.over or number < state.index:
        stands = "done" if number < state.index or state.phase is not Phase.LEFT else "skipped"
    else:
        stands = "now" if number == state.index else "next"
    said = [one for one in state.verdicts if one.step == f"{number} {step.name}"]
    running = state.phase in (Phase.RUNNING, Phase.DONE)
    return StepView(
        name=step.name,
        kind=type(step).__name__.lower(),
        state=stands,
        verdict=said[-1].verdict.outcome.value if said and running else "",
    )


def _versions(state: State, routers: list[RouterReport], units: list[UnitReport]) -> list[VersionView]:
    plan, weights = state.plan, state.wish.weights
    whole = sum(weights.values())
    names = [*plan.old, plan.version]
    seen = {
        name: sum(report.versions[name].window.requests for report in routers if name in report.versions)
        for name in {version for report in routers for version in report.versions}
    }
    observed = sum(seen.values())
    return [
        VersionView(
            version=name,
            role="new" if name == plan.version else "old",
            wanted=weights.get(name, 0.0) / whole if whole else 0.0,
            served=_served(routers, name),
            observed=seen.get(name, 0) / observed if observed else None,
            requests=counted.requests if counted else 0,
            failures=counted.failures if counted else 0,
            instances=sorted(
                unit.state for unit in units if unit.version == name and unit.state != "stopped"
            ),
        )
        for name in names
        for counted in [state.ledger.total.get(name)]
    ]


def _served(routers: list[RouterReport], name: VersionName) -> float | None:
    shares = [report.versions[name].share if name in report.versions else 0 for report in routers]
    return sum(shares) / len(shares) / SHARE_SLOTS if shares else None


def _left_s(state: State, now: float) -> float | None:
    """What the waits from here on take at least."""
    if state.over:
        return 0.0
    if state.paused or state.phase is Phase.NEEDS_PERSON:
        return None
    left = 0.0
    for number, step in enumerate(state.steps[state.index :]):
        gone = now - state.since if number == 0 else 0.0
        match step:
            case Analyse() | Pause():
                if isinstance(step, Pause) and not step.seconds:
                    return None
                left += max(0.0, step.seconds - gone)
            case Approve():
                return None
            case _:
                pass
    return left


def journal_lines(journal: Iterable[Entry], began: float) -> list[str]:
    """The journal for people: seconds since the beginning, and what happened."""
    return [
        f"{entry.at - began:8.1f} s  {entry.kind:7}  {entry.said}"
        + (f"  [{entry.step}]" if entry.step else "")
        for entry in journal
    ]
