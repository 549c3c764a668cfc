"""However many tests there are, all parts together are the false alarms that a rollout may make."""

from __future__ import annotations

import pytest

from milkrun.rollout.analysis.alarm import for_failures, for_latency


def test_all_parts_are_never_more_than_the_whole():
    parts = [for_latency(0.01, test) for test in range(1, 100_000)]

    assert for_failures(0.01) + sum(parts) == pytest.approx(0.01, rel=1e-4)
    assert for_failures(0.01) + sum(parts) <= 0.01
    assert parts == sorted(parts, reverse=True)
