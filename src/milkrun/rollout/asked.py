"""What becomes of what somebody asks of a rollout. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from milkrun.rollout.state import Cause, Intent, Phase, State
from milkrun.rollout.steps import Analyse, Approve, Migrate, Move, Pause


class Then(StrEnum):
    """What follows."""

    NOTHING = "nothing"
    PAUSE = "pause"
    GO_ON = "go on"
    NEXT = "next step"
    LAST = "all traffic"
    TAKE_BACK = "take back"
    LEAVE = "leave"


class Wanted(msgspec.Struct, frozen=True):
    """What follows, and the journal's line for it."""

    then: Then
    said: str


def judge(state: State, intent: Intent) -> Wanted:
    """What follows from the intent, as the rollout stands. One that does not fit changes nothing."""
    who = f"{intent.verb} by {intent.by}" + (f": {intent.reason}" if intent.reason else "")
    if state.over:
        return Wanted(Then.NOTHING, f"{who}: it has ended already")
    approving = isinstance(state.step, Approve)
    match intent.verb:
        case "pause":
            fits = state.paused is None and state.phase is Phase.RUNNING
            return Wanted(Then.PAUSE if fits else Then.NOTHING, who)
        case "resume":
            return _resume(state, who)
        case "retry":
            return _retry(state, who)
        case "promote":
            return _promote(state, intent, who)
        case "approve":
            return Wanted(Then.NEXT if approving else Then.NOTHING, who)
        case "reject":
            return Wanted(Then.TAKE_BACK if approving else Then.NOTHING, who)
        case "abort":
            return _abort(state, intent, who)
        case "start":
            return Wanted(Then.NOTHING, f"{who}: another rollout is under way")


def _abort(state: State, intent: Intent, who: str) -> Wanted:
    if intent.full:
        return Wanted(Then.LEAVE, who)
    begun = state.phase is Phase.TAKING_BACK and not state.paused
    return Wanted(Then.NOTHING if begun else Then.TAKE_BACK, who)


def _resume(state: State, who: str) -> Wanted:
    if state.paused:
        return Wanted(Then.GO_ON, who)
    waits = isinstance(state.step, Pause) and not state.step.seconds
    return Wanted(Then.NEXT if waits else Then.NOTHING, who)


def _retry(state: State, who: str) -> Wanted:
    if state.phase is Phase.NEEDS_PERSON:
        return Wanted(Then.TAKE_BACK, who)
    stuck = state.paused is not None and state.paused.cause is not Cause.ASKED
    return Wanted(Then.GO_ON if stuck else Then.NOTHING, who)


def _promote(state: State, intent: Intent, who: str) -> Wanted:
    if state.phase is not Phase.RUNNING:
        return Wanted(Then.NOTHING, f"{who}: it is being taken back")
    if state.paused and state.paused.cause is Cause.FOREIGN_EDIT:
        return Wanted(Then.NOTHING, f"{who}: the deploy file was edited; resume or abort")
    if intent.full and promotion(state) > state.index:
        return Wanted(Then.LAST, who)
    if isinstance(state.step, Pause | Analyse):
        return Wanted(Then.NEXT, who)
    return Wanted(Then.GO_ON if state.paused else Then.NOTHING, who)


def promotion(state: State) -> int:
    """The number of the step that gives the new version all traffic (of the look at the database before it), when the
    instances for that run already and the database is ready; the present one when there is none to jump to.
    """
    new = state.plan.version
    have = state.wish.versions.get(new)
    for number in range(state.index, len(state.steps)):
        step = state.steps[number]
        if isinstance(step, Migrate) and step.phase != "verify":
            return state.index
        if isinstance(step, Move) and not any(
            step.versions[old].weight for old in state.plan.old if old in step.versions
        ):
            ready = have is not None and have.replicas == step.versions[new].replicas
            looked = number > state.index and isinstance(state.steps[number - 1], Migrate)
            return (number - 1 if looked else number) if ready else state.index
    return state.index
