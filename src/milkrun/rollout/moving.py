"""Whether a move has come true: served by every live router, with the instances that it asks for. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from milkrun.model import VersionName
from milkrun.overview import served
from milkrun.rollout import back
from milkrun.rollout.facts import Facts
from milkrun.rollout.state import Commit, Phase, State
from milkrun.rollout.steps import Move


class Stage(StrEnum):
    """How far a move has come."""

    ROUTERS = "routers"
    INSTANCES = "instances"
    DRAINING = "draining"
    DONE = "done"
    REFUSED = "refused"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The stage, whom it waits for, and whether the routers serve its shares."""

    stage: Stage
    waits_for: list[str] = []
    served: bool = False


def standing(state: State, move: Move, commit: Commit, facts: Facts) -> Standing:
    """Where the present move stands."""
    routed = served.standing(
        facts.routers,
        facts.sync,
        file=f"deploy/{state.service}.json",
        generation=commit.generation,
        settled_s=served.HELD_S,
    )
    match routed.outcome:
        case served.Outcome.REFUSED:
            return Standing(stage=Stage.REFUSED, waits_for=[routed.reason])
        case served.Outcome.WAITING:
            return Standing(stage=Stage.ROUTERS, waits_for=routed.waits_for)
        case served.Outcome.HELD:
            return Standing(stage=Stage.ROUTERS, waits_for=[routed.reason])
        case served.Outcome.SERVED:
            pass
    if lacking := _lacking(state, move, facts):
        return Standing(stage=Stage.INSTANCES, waits_for=lacking, served=True)
    if leaving := _leaving(state, move, facts):
        return Standing(stage=Stage.DRAINING, waits_for=leaving, served=True)
    return Standing(stage=Stage.DONE, served=True)


def _wanted(state: State, move: Move) -> dict[VersionName, int]:
    """Of which version how many instances have to be healthy.

    Forward that is the new one's: a fix has to go out also when the old version is broken. Backward it is those that
    are to have the traffic: all of them before they get it, and somebody at least after that.
    """
    if state.phase is Phase.RUNNING:
        new = move.versions.get(state.plan.version)
        return {state.plan.version: 1 if new.replicas is None else new.replicas} if new else {}
    whole = move.name == back.WARM
    return {
        name: (each.replicas or 1) if whole else 1
        for name, each in move.versions.items()
        if name in state.plan.old and (each.replicas is None or each.replicas)
    }


def _lacking(state: State, move: Move, facts: Facts) -> list[str]:
    found = []
    for version, count in sorted(_wanted(state, move).items()):
        healthy = len(facts.healthy(version))
        if healthy < count:
            why = sorted(
                {unit.reason for unit in facts.running(version) if unit.state != "healthy" and unit.reason}
            )
            reason = f" ({'; '.join(why)})" if why else ""
            found.append(
                f"{count - healthy} of {count} {_instances(count)} of {version} to become healthy{reason}"
            )
    return found


def _leaving(state: State, move: Move, facts: Facts) -> list[str]:
    found = []
    for version in sorted({*state.plan.old, state.plan.version}):
        each = move.versions.get(version)
        if each and each.replicas is None:
            continue  # it is not git that says who runs
        units = facts.running(version)
        extra = len(units) - (each.replicas or 0 if each else 0)
        draining = sum(unit.state == "draining" for unit in units)
        if leaving := max(extra, draining):
            found.append(f"{leaving} {_instances(leaving)} of {version} to be drained and stopped")
    return found


def unseen(state: State, move: Move, facts: Facts) -> list[str]:
    """What may still run of the versions that are to have left: their host died or is cut off. Nobody waits for it."""
    found = []
    for version in sorted({*state.plan.old, state.plan.version}):
        each = move.versions.get(version)
        lost = facts.unreported(version)
        if lost and (each.replicas == 0 if each else True):
            agent = "its agent does" if len(lost) == 1 else "their agents do"
            found.append(
                f"{len(lost)} {_instances(len(lost))} of {version} may still run: {agent} not report"
                f" ({', '.join(one.id for one in lost)})"
            )
    return found


def _instances(count: int) -> str:
    return "instance" if count == 1 else "instances"
