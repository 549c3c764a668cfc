"""Histograms merge without error and know quantiles to within half a bucket."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun import latency

TIMES = st.lists(st.integers(10, 100_000_000 - 1), min_size=1, max_size=200)


def counted(times):
    return latency.merged({latency.bucket(time): 1} for time in times)


@given(TIMES, st.floats(0.001, 1))
def test_a_quantile_is_within_five_percent_of_the_sorted_samples_own(times, fraction):
    exact = sorted(times)[max(1, math.ceil(fraction * len(times))) - 1]

    assert latency.quantile_ms(counted(times), fraction) == pytest.approx(exact / 1000, rel=0.050001)


@given(TIMES, TIMES)
def test_merging_is_counting_everything_in_one(some, others):
    assert latency.merged([counted(some), counted(others)]) == counted(some + others)


@given(TIMES, st.sampled_from([n * 10**d for n in (1, 2, 5) for d in range(1, 8)]))
def test_at_one_two_and_five_of_a_decade_the_count_of_what_was_quicker_is_exact(times, bound):
    assert latency.quicker(counted(times), bound) == sum(time < bound for time in times)


@given(TIMES)
def test_the_sum_is_within_five_percent(times):
    assert latency.sum_s(counted(times)) == pytest.approx(sum(times) / 1e6, rel=0.050001)


def test_buckets_are_ten_percent_wide_at_most():
    inner = latency.BOUNDS_US[1:]

    assert all(low < high <= low * 1.1 for low, high in itertools.pairwise(inner))


def test_nothing_has_no_quantile_and_what_has_no_end_is_its_beginning():
    assert latency.quantile_ms({}, 0.5) is None
    assert latency.quantile_ms({latency.bucket(10**12): 1}, 0.5) == 100_000
    assert latency.bucket(-5) == latency.bucket(0) == 0
