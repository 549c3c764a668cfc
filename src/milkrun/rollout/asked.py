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
    """What follows, and the journal's line for it. `refused`: what was wanted neither happens nor is so already."""

    then: Then
    said: str
    refused: bool = False


def judge(state: State, intent: Intent) -> Wanted:
    """What follows from the intent, as the rollout stands. One that does not fit changes nothing, and hears why."""
    who = f"{intent.verb} by {intent.by}" + (f": {intent.reason}" if intent.reason else "")
    then, why = _then(state, intent)
    return Wanted(then, f"{who}; {why}" if why else who, refused=then is Then.NOTHING and why != _SO)


_SO = "it is so already"


def _then(state: State, intent: Intent) -> tuple[Then, str]:
    if intent.rollout not in ("", state.plan.id):
        return Then.NOTHING, f"that was said to {intent.rollout}, and this is {state.plan.id}"
    if state.over or intent.verb == "start":
        return (
            Then.NOTHING,
            "another rollout is under way" if not state.over else f"it has ended: {state.phase.value}",
        )
    match intent.verb:
        case "pause":
            return _pause(state)
        case "resume":
            return _resume(state)
        case "retry":
            return _retry(state)
        case "promote":
            return _promote(state, intent)
        case "approve" | "reject":
            return _answer(state, intent)
        case "abort":
            return _abort(state, intent)


def _stands(state: State) -> str:
    """Where it is, to be read behind a comma."""
    if state.phase is Phase.TAKING_BACK:
        return "it is being taken back"
    if state.phase is Phase.NEEDS_PERSON:
        return "it could not be taken back, and needs a person"
    return f"it is at `{state.step.name}`" if state.step else "it is at its end"


def _pause(state: State) -> tuple[Then, str]:
    if state.paused:
        return Then.NOTHING, _SO
    if state.phase is not Phase.RUNNING:
        return Then.NOTHING, f"only what goes forward can be paused, and {_stands(state)}"
    return Then.PAUSE, ""


def _answer(state: State, intent: Intent) -> tuple[Then, str]:
    if not isinstance(state.step, Approve):
        return Then.NOTHING, f"it does not wait for approval, {_stands(state)}"
    return (Then.NEXT if intent.verb == "approve" else Then.TAKE_BACK), ""


def _abort(state: State, intent: Intent) -> tuple[Then, str]:
    if intent.full:
        return Then.LEAVE, ""
    begun = state.phase is Phase.TAKING_BACK and not state.paused
    return (Then.NOTHING, _SO) if begun else (Then.TAKE_BACK, "")


def _resume(state: State) -> tuple[Then, str]:
    if state.paused:
        return Then.GO_ON, ""
    if isinstance(state.step, Pause) and not state.step.seconds:
        return Then.NEXT, ""
    return Then.NOTHING, f"nothing is held, {_stands(state)}"


def _retry(state: State) -> tuple[Then, str]:
    if state.phase is Phase.NEEDS_PERSON:
        return Then.TAKE_BACK, ""
    if state.paused and state.paused.cause is Cause.ASKED:
        return Then.NOTHING, "somebody paused it: `resume` lets it go on"
    return (Then.GO_ON, "") if state.paused else (Then.NOTHING, f"it is not stuck, {_stands(state)}")


def _promote(state: State, intent: Intent) -> tuple[Then, str]:
    if state.phase is not Phase.RUNNING:
        return Then.NOTHING, f"only what goes forward can be promoted, and {_stands(state)}"
    if state.paused and state.paused.cause is Cause.FOREIGN_EDIT:
        return Then.NOTHING, "the deploy file was edited; resume or abort"
    if intent.full and promotion(state) > state.index:
        return Then.LAST, ""
    if isinstance(state.step, Pause | Analyse):
        return Then.NEXT, ""
    if state.paused:
        return Then.GO_ON, ""
    if intent.full:
        return Then.NOTHING, (
            f"{_stands(state)}, from where no step leads to all traffic yet: not all new instances run, its database is"
            " not ready, or it has all traffic already"
        )
    return Then.NOTHING, f"{_stands(state)}, which is no wait that could be skipped"


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
