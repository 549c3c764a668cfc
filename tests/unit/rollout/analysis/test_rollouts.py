"""Whole rollouts by dice: equal versions stay, bad ones go, and soon. `make soak` throws a hundred times as often."""

from __future__ import annotations

import os

import pytest
from unit.rollout.analysis.trials import World, count, judged

from milkrun.rollout.analysis.verdict import Outcome

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
TIMES = 100 if SOAK else 1

EQUAL = {
    "two against four": World(),
    "one against three": World(canary=1, stable=3),
    "six against six": World(canary=6, stable=6),
    "ten against ten": World(canary=10, stable=10),
    "both fail now and then": World(outage=0.05),
    "many fail": World(fails=0.03),
    "no noise, looked at each second": World(noise=0.0, look_s=1.0),
    "each answer drawn": World(each=True),
}


@pytest.mark.timeout(0 if SOAK else 300)
@pytest.mark.parametrize("world", EQUAL.values(), ids=EQUAL)
def test_equal_versions_are_told_apart_in_one_of_a_hundred_rollouts_at_most(world):
    trials = 20 * TIMES
    told = count(trials, lambda seed: judged(world, seed))

    assert told[Outcome.FAIL] <= trials // 100
    assert told[Outcome.PASS] >= 0.9 * trials


def test_five_percent_of_failures_go_within_a_minute_and_hurt_one_user_in_a_hundred():
    world = World(fails=0.001, canary_fails=0.05, per_s=1000)  # 50 a second on the canary
    ends = [judged(world, seed) for seed in range(50 * TIMES)]

    assert {ended.outcome for ended in ends} == {Outcome.FAIL}
    assert max(ended.seconds for ended in ends) <= 60
    assert max(ended.hurt for ended in ends) <= 0.01


def test_also_when_thousands_of_good_requests_came_before():
    world = World(canary_fails=0.05, per_s=1000, good_s=60, window_s=600)
    ends = [judged(world, seed) for seed in range(20 * TIMES)]

    assert {ended.outcome for ended in ends} == {Outcome.FAIL}
    assert min(ended.seconds for ended in ends) > 60
    assert max(ended.seconds for ended in ends) <= 120


@pytest.mark.parametrize(
    "world",
    [World(canary_fails=0.031), World(slower=1.55, canary=3, stable=6)],
    ids=["3 points more failures", "55 % slower"],
)
def test_what_a_pass_would_have_found_is_found_nine_times_in_ten(world):
    trials = 100 * TIMES

    assert count(trials, lambda seed: judged(world, seed))[Outcome.FAIL] >= 0.9 * trials


@pytest.mark.parametrize("more", [0.01, 0.02, 0.03])
def test_a_version_that_fails_more_than_is_allowed_seldom_passes(more):
    trials = 20 * TIMES
    world = World(canary_fails=0.001 + more, extend_s=60)

    assert count(trials, lambda seed: judged(world, seed))[Outcome.PASS] <= 0.1 * trials
