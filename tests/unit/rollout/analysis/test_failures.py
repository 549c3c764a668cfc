"""The bet against "the new version is not worse": fair to every pair of rates that keeps it, at any number of looks."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from milkrun.rollout.analysis import failures
from milkrun.rollout.analysis.verdict import Counts

rates = st.floats(1e-4, 0.95)


def outcomes(canary, stable, p, q):
    """Every outcome of so many requests to each, and how likely it is."""
    for bad, stable_bad in product(range(canary + 1), range(stable + 1)):
        chance = likely(bad, canary, p) * likely(stable_bad, stable, q)
        counts = Counts(canary=canary, canary_failures=bad, stable=stable, stable_failures=stable_bad)
        yield counts, chance


def likely(count, of, rate):
    return math.comb(of, count) * rate**count * (1 - rate) ** (of - count)


@settings(deadline=None)
@given(
    canary=st.integers(0, 5),
    stable=st.integers(0, 5),
    q=st.floats(0, 1),
    part=st.floats(0, 1),
    known=rates,
    allowed=st.sampled_from([0.0, 0.005, 0.1]),
    more=st.floats(0.005, 0.5),
)
def test_no_bet_gains_in_the_mean_while_the_new_version_is_not_worse(
    *, canary, stable, q, part, known, allowed, more
):
    p = min(1.0, q + allowed) * part
    mean = [0.0] * len(failures.RUNGS)
    for counts, chance in outcomes(canary, stable, p, q):
        grown = failures.grown([0.0] * len(mean), counts, known, allowed, allowed + more)
        mean = [sum_ + chance * math.exp(bet) for sum_, bet in zip(mean, grown, strict=True)]

    assert max(mean) <= 1 + 1e-9


@settings(deadline=None)
@given(a=rates, b=rates, weight=st.floats(0.001, 0.999), allowed=st.sampled_from([0.0, 0.005, 0.05]))
def test_nearest_is_the_nearest_pair(a, b, weight, allowed):
    assume(a - allowed > b + 1e-6)

    def apart(q):
        return weight * stats.entropy([a, 1 - a], [q + allowed, 1 - q - allowed]) + (
            1 - weight
        ) * stats.entropy([b, 1 - b], [q, 1 - q])

    p, q = failures.nearest(a, b, weight, allowed)
    best = optimize.minimize_scalar(
        apart, bounds=(b, a - allowed), method="bounded", options={"xatol": 1e-12}
    )

    assert p == q + allowed
    assert apart(q) <= best.fun + 1e-12


def test_a_pair_that_keeps_what_is_allowed_is_its_own_nearest():
    assert failures.nearest(0.004, 0.001, 0.5, 0.005) == (0.004, 0.001)


@settings(deadline=None)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=50))
def test_never_more_than_the_whole_stake_is_put_down(requests):
    total, before = 0.0, 0
    for window, count in enumerate(requests, 1):
        total += failures.window_part(window) + failures.within_part(before, before + count)
        before += count

    assert total <= 1
    assert sum(part for _, part in failures.RUNGS) == pytest.approx(1)


@settings(deadline=None)
@given(
    canary=st.integers(0, 10**9),
    stable=st.integers(0, 10**9),
    bad=st.floats(0, 1),
    stable_bad=st.floats(0, 1),
    known=st.floats(1e-9, 1 - 1e-9),
    allowed=st.floats(0, 1),
    more=st.floats(0.0001, 1),
)
def test_any_counts_have_finite_bets(*, canary, stable, bad, stable_bad, known, allowed, more):
    counts = Counts(
        canary=canary,
        canary_failures=int(canary * bad),
        stable=stable,
        stable_failures=int(stable * stable_bad),
    )
    bets = failures.grown(failures.put_down([], 0.5), counts, known, allowed, allowed + more)

    assert all(math.isfinite(bet) for bet in bets)
    assert math.isfinite(failures.stake(bets))


def play(seed, canary_rate, stable_rate, *, looks, allowed=0.005, matters=0.03):
    """The highest that the stake ever was, in one rollout of three windows with so many looks each."""
    dice = np.random.default_rng(seed)
    bets, known, highest = [], Counts(), 0.0
    for window, share in enumerate((0.05, 0.25, 0.5), 1):
        bets = failures.put_down(bets, failures.window_part(window))
        for _ in range(looks):
            canary, stable = int(dice.poisson(600 * share)), int(dice.poisson(600 * (1 - share)))
            new = Counts(
                canary=canary,
                canary_failures=int(dice.binomial(canary, canary_rate)),
                stable=stable,
                stable_failures=int(dice.binomial(stable, stable_rate)),
            )
            bets = failures.put_down(bets, failures.within_part(known.canary, known.canary + canary))
            bets = failures.grown(bets, new, failures.stable_rate(known), allowed, matters)
            known = Counts(
                canary=known.canary + canary,
                stable=known.stable + stable,
                stable_failures=known.stable_failures + new.stable_failures,
            )
            highest = max(highest, math.exp(failures.stake(bets)))
    return highest


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3])
def test_at_the_very_edge_of_what_is_allowed_the_stake_seldom_grows(rate):
    """Ville: in one of twenty rollouts at most it is ever twenty times what it was, looked at 60 times."""
    highest = [play(seed, rate + 0.005, rate, looks=20) for seed in range(100)]

    assert sum(stake >= 20 for stake in highest) <= 5
    assert sum(stake >= 1000 for stake in highest) == 0


def test_equal_versions_with_nothing_allowed_are_seldom_told_apart():
    highest = [play(seed, 0.01, 0.01, looks=20, allowed=0.0, matters=0.02) for seed in range(100)]

    assert sum(stake >= 20 for stake in highest) <= 5


def test_what_was_lost_in_good_times_does_not_hide_bad_ones():
    bets = failures.put_down([], failures.window_part(1))
    good = Counts(canary=10_000, canary_failures=10, stable=90_000, stable_failures=90)
    bad = Counts(canary=150, canary_failures=8, stable=1350, stable_failures=1)
    bets = failures.grown(bets, good, 0.001, 0.005, 0.03)
    lost = failures.stake(bets)
    for look in range(4):
        before = 10_000 + 150 * look
        bets = failures.put_down(bets, failures.within_part(before, before + 150))
        bets = failures.grown(bets, bad, 0.001, 0.005, 0.03)

    assert lost < math.log(0.1)
    assert failures.stake(bets) > math.log(1000)
