"""Who waits for a turn, for whom, and who was called off."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from rollout_world import GOAT, World

from milkrun.rollout import queue
from milkrun.rollout.state import Intent, Phase, State
from milkrun.settings.rollout import RolloutSettings

UNDER_WAY: State = World(1, RolloutSettings()).stored
OVER = msgspec.structs.replace(UNDER_WAY, phase=Phase.DONE)
MINE = UNDER_WAY.plan.id


def start(rollout: str) -> Intent:
    return Intent(id=f"s{rollout}", verb="start", by="kate", at=1.0, rollout=rollout, version="1.0")


def abort(rollout: str) -> Intent:
    return Intent(id=f"a{rollout}", verb="abort", by="ben", at=2.0, rollout=rollout, reason="too late")


def test_each_waits_for_those_before_it():
    intents = [start("b"), abort(MINE), start("c")]
    assert queue.ahead("c", intents, UNDER_WAY) == [MINE, "b"]
    assert queue.ahead("b", intents, OVER) == []
    assert queue.ahead("c", intents, OVER) == ["b"]
    assert queue.ahead(MINE, intents, UNDER_WAY) == []
    assert queue.ahead("c", intents, None) == ["b"]


def test_one_that_has_begun_waits_no_more_though_its_wish_is_still_there():
    assert queue.waiting([start(MINE), start("b")], UNDER_WAY) == [start("b")]


def test_one_that_is_called_off_never_began_and_says_who_did_not_want_it():
    (found,) = queue.called_off(GOAT, {"1": start("b"), "2": start("c"), "3": abort("b")}, UNDER_WAY, 9.0)
    assert found.keys == ("1", "3")
    assert (found.receipt.rollout, found.receipt.outcome, found.receipt.old) == ("b", "refused", [])
    assert found.receipt.reason == "called off by ben: too late"


def test_one_that_has_begun_is_not_called_off():
    assert queue.called_off(GOAT, {"1": start(MINE), "2": abort(MINE)}, UNDER_WAY, 9.0) == []


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", MINE]))))
def test_each_key_is_taken_once_and_with_its_own_rollout(said: list[tuple[bool, str]]):
    intents = {str(n): (start if begins else abort)(rollout) for n, (begins, rollout) in enumerate(said)}
    found = queue.called_off(GOAT, intents, UNDER_WAY, 9.0)
    taken = [key for each in found for key in each.keys]
    assert len(taken) == len(set(taken))
    for each in found:
        wish, against = (intents[key] for key in each.keys)
        assert (wish.verb, against.verb) == ("start", "abort")
        assert wish.rollout == against.rollout == each.receipt.rollout != MINE
