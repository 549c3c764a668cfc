"""The sequences are those that a real Consul 1.8.7 went through; the contract suite runs some of them against it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.checks.thresholds import Row, Thresholds

P, W, C = "passing", "warning", "critical"
STATUSES = st.sampled_from([P, W, C])
NUMBERS = st.integers(-2, 6)


def shown(thresholds, results, status, row=None):
    row = thresholds.first if row is None else row
    seen = []
    for result in results:
        row, believed = thresholds.after(row, result)
        status = believed or status
        seen.append(status)
    return seen


@pytest.mark.parametrize(
    ("thresholds", "start", "results", "wanted"),
    [
        (Thresholds(), C, [P, C, W, P], [P, C, W, P]),
        (Thresholds(before_critical=3), P, [C, C], [C, C]),
        (Thresholds(before_critical=3), C, [C, C, C, P, C, C, C], [C, C, C, P, P, P, C]),
        (Thresholds(before_passing=3), C, [P, P], [P, P]),
        (Thresholds(before_passing=3), P, [C, P, P, P], [C, C, C, P]),
        (
            Thresholds(before_passing=2, before_critical=2),
            C,
            [P, P, C, P, C, C, P, C, P, P, P],
            [P, P, P, P, P, C, C, C, C, P, P],
        ),
        (Thresholds(before_passing=2), C, [W, W, W, C, W, P, W, P], [W, W, W, C, C, P, W, P]),
        (Thresholds(before_critical=3, before_warning=1), C, [P, C, C, C], [P, W, W, C]),
        (Thresholds(before_critical=4, before_warning=2), C, [P, C, C, C, C], [P, P, W, W, C]),
    ],
)
def test_what_is_shown(thresholds, start, results, wanted):
    assert shown(thresholds, results, start) == wanted


def test_after_a_restart_the_first_result_is_one_of_many():
    assert shown(Thresholds(before_critical=3), [C, C, C], P, Row()) == [P, P, C]
    assert shown(Thresholds(before_passing=2), [P, P], C, Row()) == [C, P]


@given(NUMBERS, NUMBERS, NUMBERS, st.lists(STATUSES, max_size=30), STATUSES)
def test_only_an_unbroken_row_changes_what_is_shown(passing, warning, critical, results, start):
    thresholds = Thresholds(before_passing=passing, before_warning=warning, before_critical=critical)
    seen = [start, *shown(thresholds, results, start, Row())]
    for place, (was, now) in enumerate(itertools.pairwise(seen), start=1):
        if was == now:
            continue
        so_far = results[:place]
        if now == C:
            assert so_far[-max(1, critical) :] == [C] * max(1, critical)
        elif so_far[-1] == C:
            assert now == W
            assert so_far[-warning:] == [C] * warning
        else:
            assert now == so_far[-1]
            row = so_far[-max(1, passing) :]
            assert len(row) == max(1, passing)
            assert C not in row


@given(NUMBERS, NUMBERS, STATUSES, st.integers(0, 3))
def test_the_same_result_often_enough_is_always_shown(passing, critical, status, before):
    thresholds = Thresholds(before_passing=passing, before_critical=critical)
    assert shown(thresholds, [P, C] * before + [status] * 7, W)[-1] == status
