"""What somebody hears who asks something of a rollout: that it was done, that it is so already, or why not."""

from __future__ import annotations

import msgspec
import pytest
from rollout_world import NEW, World

from milkrun.rollout import asked
from milkrun.rollout.asked import Then
from milkrun.rollout.state import Cause, Intent, Paused, Phase
from milkrun.rollout.steps import Analyse, Approve, Move, Pause, Smoke
from milkrun.settings.rollout import RolloutSettings

STATE = World(1, RolloutSettings()).stored
STEPS = {
    "move": Move("weight 5%", {}),
    "smoke": Smoke(),
    "wait": Pause(30),
    "halt": Pause(0),
    "ask": Approve(0),
}
HELD = {cause: Paused(cause, "why", 1.0) for cause in Cause}


def wanted(
    verb: str, step: str = "move", *, full: bool = False, rollout: str = "", **changes
) -> asked.Wanted:
    state = msgspec.structs.replace(STATE, steps=[STEPS[step]], index=0, **changes)
    said = Intent(id="i", verb=verb, by="kate", at=1.0, reason="lunch", full=full, rollout=rollout)
    return asked.judge(state, said)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (wanted("approve"), "it does not wait for approval, it is at `weight 5%`"),
        (wanted("reject", "wait"), "it does not wait for approval"),
        (wanted("retry"), "it is not stuck"),
        (wanted("retry", paused=HELD[Cause.ASKED]), "somebody paused it"),
        (wanted("resume", "wait"), "nothing is held"),
        (wanted("promote"), "no wait that could be skipped"),
        (wanted("promote", "smoke", full=True), "no step leads to all traffic"),
        (wanted("promote", "wait", paused=HELD[Cause.FOREIGN_EDIT]), "resume or abort"),
        (wanted("promote", "wait", phase=Phase.TAKING_BACK), "it is being taken back"),
        (wanted("pause", phase=Phase.TAKING_BACK), "it is being taken back"),
        (wanted("pause", phase=Phase.NEEDS_PERSON), "needs a person"),
        (wanted("approve", "ask", phase=Phase.DONE), "it has ended: done"),
        (wanted("abort", rollout="another"), "that was said to another"),
        (wanted("start"), "another rollout is under way"),
    ],
)
def test_what_does_not_fit_hears_why(found: asked.Wanted, why: str):
    assert found.then is Then.NOTHING
    assert found.refused
    assert why in found.said
    assert found.said.split(";")[0].endswith("by kate: lunch")


@pytest.mark.parametrize(
    "found",
    [
        wanted("pause", paused=HELD[Cause.ASKED]),
        wanted("pause", paused=HELD[Cause.FAILED]),
        wanted("abort", phase=Phase.TAKING_BACK),
    ],
)
def test_what_is_so_already_is_not_refused(found: asked.Wanted):
    assert (found.then, found.refused) == (Then.NOTHING, False)


@pytest.mark.parametrize(
    ("found", "then"),
    [
        (wanted("pause"), Then.PAUSE),
        (wanted("resume", "halt"), Then.NEXT),
        (wanted("resume", paused=HELD[Cause.FOREIGN_EDIT]), Then.GO_ON),
        (wanted("retry", paused=HELD[Cause.FAILED]), Then.GO_ON),
        (wanted("retry", phase=Phase.NEEDS_PERSON), Then.TAKE_BACK),
        (wanted("promote", "wait"), Then.NEXT),
        (wanted("approve", "ask"), Then.NEXT),
        (wanted("reject", "ask"), Then.TAKE_BACK),
        (wanted("abort", rollout=STATE.plan.id), Then.TAKE_BACK),
        (wanted("abort", full=True, phase=Phase.NEEDS_PERSON), Then.LEAVE),
    ],
)
def test_what_fits_is_done(found: asked.Wanted, then: Then):
    assert (found.then, found.refused) == (then, False)
    assert found.said.endswith("by kate: lunch")


def test_the_journal_says_which_wish_it_answers_and_whether_something_comes_of_it():
    world = World(1, RolloutSettings(steps=["pause"]))
    for verb, name in (("retry", "a"), ("pause", "b")):
        world.intents = [Intent(id=name, verb=verb, by="kate", at=world.now)]
        world.turn()
    answers = {entry.answers: entry.refused for entry in world.journal if entry.answers}
    assert answers == {"a": True, "b": False}
    assert world.stored.plan.version == NEW


def test_what_was_said_to_another_rollout_does_not_abort_this_one():
    world = World(1, RolloutSettings(steps=["pause"]))
    world.intents = [Intent(id="a", verb="abort", by="kate", at=world.now, rollout="the one before")]
    world.turn()
    assert world.stored.phase is Phase.RUNNING


def test_a_step_that_compares_can_be_skipped():
    state = msgspec.structs.replace(STATE, steps=[Analyse(10)], index=0)
    assert asked.judge(state, Intent(id="i", verb="promote", by="kate", at=1.0)).then is Then.NEXT
