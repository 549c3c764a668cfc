"""How many requests are promised to be enough, and whether they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from milkrun.rollout.analysis import failures
from milkrun.rollout.analysis.size import needed
from milkrun.rollout.analysis.verdict import Counts

ENOUGH = math.log(1 / 0.003)
PART = 0.4


def found(seed, rate, per_canary, *, size, looks, window):
    """Whether a version that is 3 points worse is found within so many requests."""
    dice = np.random.default_rng(seed)
    bets = failures.put_down([], failures.window_part(window))
    known = Counts(stable=5000, stable_failures=round(5000 * rate))
    each = math.ceil(size / looks)
    for _ in range(looks):
        stable = round(each * per_canary)
        new = Counts(
            canary=each,
            canary_failures=int(dice.binomial(each, rate + 0.03)),
            stable=stable,
            stable_failures=int(dice.binomial(stable, rate)),
        )
        bets = failures.grown(bets, new, failures.stable_rate(known), 0.005, 0.03)
        if failures.stake(bets) >= ENOUGH:
            return True
    return False


@pytest.mark.parametrize("rate", [0.0002, 0.01, 0.05])
@pytest.mark.parametrize("per_canary", [1, 19])
@pytest.mark.parametrize(("looks", "window"), [(1, 1), (10, 3)])
def test_nine_of_ten_are_found_at_the_size_that_is_promised(rate, per_canary, looks, window):
    size = needed(rate, per_canary, 0.005, 0.03, ENOUGH - math.log(PART * failures.window_part(window)))

    assert (
        sum(found(seed, rate, per_canary, size=size, looks=looks, window=window) for seed in range(200))
        >= 180
    )


def test_the_promise_is_no_waste_either():
    size = needed(0.001, 9, 0.005, 0.03, ENOUGH - math.log(PART * failures.window_part(1)))

    assert sum(found(seed, 0.001, 9, size=size // 2, looks=20, window=1) for seed in range(200)) < 180


def test_what_matters_more_needs_less():
    sizes = [needed(0.001, 9, 0.005, matters, ENOUGH) for matters in (0.01, 0.02, 0.05, 0.2)]

    assert sizes == sorted(sizes, reverse=True)


def test_no_number_is_enough_when_the_old_version_fails_always():
    assert needed(0.9999, 9, 0.005, 0.03, ENOUGH) is None
