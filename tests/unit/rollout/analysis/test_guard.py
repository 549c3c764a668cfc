"""Limits that hold whatever the old version does: broken when that is sure."""

from __future__ import annotations

import numpy as np
import pytest

from milkrun.latency import bucket
from milkrun.rollout.analysis.judge import guards
from milkrun.rollout.analysis.verdict import Outcome, Seen
from milkrun.settings.rollout import AnalysisSettings

SETTINGS = AnalysisSettings(p99_ms_at_most=500.0)


def recent(requests, failures=0, slow=0, restarts=0):
    latency = {bucket(100_000): requests - slow, bucket(500_000): slow}
    return Seen(requests=requests, failures=failures, latency=latency, instances={}, restarts=restarts)


def broken(seen, settings=SETTINGS):
    found = guards(settings, seen)
    assert {finding.outcome for finding in found} <= {Outcome.FAIL}
    return [finding.metric for finding in found]


@pytest.mark.parametrize(
    ("seen", "metrics"),
    [
        (recent(0), []),
        (recent(50, failures=3), []),
        (recent(50, failures=12), ["failures-at-most"]),
        (recent(49, failures=49), []),
        (recent(5000, failures=260), []),
        (recent(5000, failures=320), ["failures-at-most"]),
        (recent(500, slow=8), []),
        (recent(500, slow=20), ["p99-at-most"]),
        (recent(0, restarts=1), ["restarts-at-most"]),
        (recent(500, 500, 500, 3), ["restarts-at-most", "failures-at-most", "p99-at-most"]),
    ],
)
def test_what_each_guard_says(seen, metrics):
    assert broken(seen) == metrics


def test_without_a_limit_no_answer_is_too_slow():
    assert broken(recent(500, slow=500), AnalysisSettings()) == []


def test_a_version_that_never_may_fail_breaks_its_limit_with_one_failure():
    assert broken(recent(500, failures=1), AnalysisSettings(failures_at_most=0.0)) == ["failures-at-most"]


def test_a_version_well_under_the_limit_never_meets_it():
    """1 % fail, and any 50 requests are looked at: one time in 70, 3 or more of them fail, which is over 5 %."""
    dice = np.random.default_rng(1)
    counts = dice.binomial(50, 0.01, 5000)

    assert (counts >= 3).any()
    assert [count for count in counts if broken(recent(50, failures=int(count)))] == []


def test_more_failures_than_requests_are_no_more_than_all():
    assert guards(SETTINGS, recent(50, failures=70))[0].canary == 1.0
