"""Rates and counts as people read them. Pure."""

from __future__ import annotations


def percent(rate: float) -> str:
    """A rate from 0 to 1 with two places, without those that say nothing: `0.1 %`."""
    return f"{round(100 * rate, 2):g} %"


def many(count: float) -> str:
    """A count with its thousands apart: `12,345`."""
    return f"{count:,.0f}"
