"""How the false alarms that a rollout may make are divided. Pure.

The sum of all parts is `false_alarm`, however many looks, tests and windows there are.
"""

from __future__ import annotations

_FAILURES = 0.3
_LATENCY = 0.7
"""Latency has more: failures pay for a part ten times as small with a few requests, latency with instances."""


def for_failures(false_alarm: float) -> float:
    """For the comparison of failures, at all looks together."""
    return false_alarm * _FAILURES


def for_latency(false_alarm: float, test: int) -> float:
    """For this test of latency; the first one is number 1. Later ones get less: 1/2, 1/6, 1/12 ..."""
    return false_alarm * _LATENCY / (test * (test + 1))
