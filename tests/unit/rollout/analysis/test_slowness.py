"""The instance as the unit: what chance, machines and whole milliseconds do is no difference of the versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from milkrun.latency import bucket
from milkrun.model import InstanceId
from milkrun.rollout.analysis import slowness
from milkrun.rollout.analysis.verdict import InstanceSeen, Seen

SPREAD = math.sqrt(math.expm1(0.25))


def seen(*means, requests=1024):
    instances = {
        InstanceId(f"i-{number}"): InstanceSeen(requests=requests, failures=0, mean_ms=mean)
        for number, mean in enumerate(means)
    }
    return Seen(requests=requests * len(means), failures=0, latency={}, instances=instances)


def between(canary, stable, spread=SPREAD):
    return slowness.difference(slowness.side(canary), slowness.side(stable), spread)


def drawn(dice, count, noise, slower, requests):
    factors = np.exp(noise * dice.standard_normal(count))
    chance = SPREAD / math.sqrt(min(requests, 1024)) * dice.standard_normal(count)
    return seen(*(100 * slower * factors * (1 + chance)), requests=requests)


def found(alpha, canary, stable, noise, *, slower=1.0, requests=1024, trials=3000):
    """In which part of so many trials the new version is called slower."""
    dice, count = np.random.default_rng(7), 0
    for _ in range(trials):
        one = drawn(dice, canary, noise, slower, requests)
        difference = between(one, drawn(dice, stable, noise, 1.0, 1024))
        count += difference.log > slowness.threshold(difference, alpha)
    return count / trials


@pytest.mark.parametrize(("canary", "stable"), [(1, 1), (1, 3), (2, 4), (5, 8)])
@pytest.mark.parametrize("requests", [60, 1024])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_equal_versions_are_told_apart_as_seldom_as_is_said(canary, stable, requests, noise):
    assert found(0.01, canary, stable, noise, requests=requests, trials=1000) <= 0.01 + 0.003


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 3), (2, 4), (3, 6), (10, 10)])
def test_what_is_promised_to_be_found_is_found(a, b):
    dice, total, trials = np.random.default_rng(5), 0, 1000
    for _ in range(trials):
        canary, stable = (drawn(dice, count, 0.1, 1.0, 1024) for count in (a, b))
        from_here = slowness.found_from(between(canary, stable), 0.0035, 0.9)
        slower = drawn(dice, a, 0.1, math.exp(from_here), 1024)
        difference = between(slower, drawn(dice, b, 0.1, 1.0, 1024))
        total += difference.log > slowness.threshold(difference, 0.0035)

    assert total / trials >= 0.9
    assert total / trials < 0.99


def test_many_instances_that_are_much_alike_find_small_differences():
    assert found(0.0035, 10, 10, 0.02, slower=1.1, trials=300) > 0.9
    assert found(0.0035, 3, 3, 0.02, slower=1.1, trials=300) < 0.1


def test_welch_is_as_scipy_has_it():
    canary, stable = seen(130.0, 141.0, 119.0, 128.0), seen(100.0, 109.0, 97.0, 103.0, 121.0)
    difference = between(canary, stable)
    theirs = stats.ttest_ind(
        slowness.side(canary).logs, slowness.side(stable).logs, equal_var=False, alternative="greater"
    )

    assert difference.log / difference.welch == pytest.approx(theirs.statistic)
    assert difference.df == pytest.approx(theirs.df)


def test_means_that_are_all_the_same_leave_the_first_way_only():
    assert between(seen(*[5.0] * 6), seen(*[5.0] * 6)).df == 0


def test_whole_milliseconds_are_no_difference():
    """1.4 ms and 1.6 ms may be told as 1 and 2: twice as slow, and yet the same."""
    one, two = (
        between(seen(*[2.0] * 20), seen(*[1.0] * 20)),
        between(seen(*[200.0] * 20), seen(*[100.0] * 20)),
    )

    assert one.log == pytest.approx(two.log)
    assert one.log < slowness.threshold(one, 0.01)
    assert two.log > slowness.threshold(two, 0.01)


def test_an_instance_without_a_mean_or_with_few_answers_is_left_out():
    assert slowness.side(seen(0.0, 100.0, math.nan, math.inf)).logs == [math.log(100.0)]
    assert slowness.side(seen(100.0, requests=slowness.ENOUGH - 1)).logs == []


def test_needed_requests_are_enough_and_none_when_only_instances_help():
    difference = between(seen(100.0, 100.0, 100.0, requests=50), seen(*[100.0] * 6), spread=2.0)
    each = slowness.needed(difference, 0.0035, 0.9, math.log(1.5), 2.0)
    then = between(seen(100.0, 100.0, 100.0, requests=each), seen(*[100.0] * 6), spread=2.0)

    assert slowness.found_from(difference, 0.0035, 0.9) > math.log(1.5)
    assert slowness.found_from(then, 0.0035, 0.9) <= math.log(1.5) + 1e-9
    assert slowness.needed(between(seen(100.0), seen(100.0)), 0.0035, 0.9, math.log(1.5), 0.5) is None


def test_the_spread_of_answers_is_that_of_their_histogram():
    times = np.random.default_rng(3).lognormal(11.0, 0.5, 20_000)
    histogram: dict[int, int] = {}
    for time in times:
        histogram[bucket(int(time))] = histogram.get(bucket(int(time)), 0) + 1

    assert slowness.spread(histogram) == pytest.approx(SPREAD, rel=0.03)
    assert slowness.spread({5: 99}) == 1.0
    assert slowness.spread({-3: 60, 10**6: 60}) > 0
