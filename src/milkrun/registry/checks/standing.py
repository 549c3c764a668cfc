"""What a check's results come to over time: what is believed, and when it is worth a write. Pure.

A result that changes nothing writes nothing. A new status is written at once. A new text alone is written at
once when it says something new (its headline differs), but not more often than every 10 s; and when only what
the service sent differs (many put the time of day into it), not more often than every 5 minutes.
"""

from __future__ import annotations

import math

from milkrun.registry.checks.damping import Damping, Flaps
from milkrun.registry.checks.thresholds import Thresholds
from milkrun.registry.checks.verdict import Result

HEADLINE_EVERY_S = 10.0
BODY_EVERY_S = 300.0


class Standing:
    """One check's memory between its results; what it shows stands in the catalog."""

    def __init__(self, thresholds: Thresholds, damping: Damping | None, *, first: bool) -> None:
        """`first`: the check had no result yet, so its first one is believed at once."""
        self._thresholds = thresholds
        self._damping = damping
        self._row = thresholds.first if first else type(thresholds.first)()
        self._flaps = Flaps()
        self._headline = ""
        self._written_at = -math.inf

    def after(self, result: Result, shown: str, output: str, now: float) -> tuple[str, str] | None:
        """The status and output to write, when the catalog shows `shown` and `output`; None: nothing."""
        self._row, status = self._thresholds.after(self._row, result.status)
        if status is None:
            return None
        headline, text = result.headline, result.output
        if self._damping:
            self._flaps, damped = self._damping.after(self._flaps, shown, status, now)
            if damped != status:
                headline = text = _held(self._damping, damped, result)
            status = damped
        if status == shown and (text == output or not self._is_time(headline, now)):
            return None
        self._headline, self._written_at = headline, now
        return status, text

    def _is_time(self, headline: str, now: float) -> bool:
        every_s = BODY_EVERY_S if headline == self._headline else HEADLINE_EVERY_S
        return now - self._written_at >= every_s


def _held(damping: Damping, status: str, result: Result) -> str:
    return (
        f"Held {status}: it fell {damping.falls} times within {damping.within_s:g} s, and must do better "
        f"for {damping.steady_s:g} s without a break. Last result: {result.headline}"
    )
