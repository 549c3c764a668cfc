"""Whether the new version fails more often than the old one, with leave to look at any time. Pure.

An e-process: a bet against "the new version's rate is at most the old one's plus what is allowed". Its stake grows from
1, and while that sentence is true it ever reaches 1/alpha with probability alpha at most, at whichever of any number of
looks (Ville's inequality). What is new since the last look is one factor,

    (a / p)^failures ((1-a) / (1-p))^successes    of the new version, times the same with b and q of the old one,

where (a, b) are rates with the sentence broken, and (p, q) those nearest to them, in the mean of both versions'
Kullback-Leibler divergences weighted by their requests, of all that keep it: then the factor's mean is at most 1 for
every pair of rates that keeps it (Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests",
2024, for a convex set of pairs). Both versions are held against each other within each factor only, so a disturbance
that hits both, in whatever rhythm, is no evidence against the new one.

b is what the old version did up to the last look. a is not known, so the stake is split over a ladder of them (RUNGS).
When the new version goes bad is not known either, so only a part of the stake is put down with each window, and more of
it as requests come: what was put down early and lost in good times does not weigh on what is put down later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from milkrun.rollout.analysis.verdict import Counts

RUNGS = ((0.1, 0.1), (0.3, 0.1), (1.0, 0.4), (3.0, 0.2), (10.0, 0.1), (30.0, 0.1))
"""How far above what is allowed each bet has the new version, as a multiple of the difference that has to be found with
certainty; and its part of the stake."""

_GUESS = 0.002
_GUESS_WEIGHT = 500
"""What the old version's rate is taken for before anything was seen, and for how many requests that counts."""

_SOON = 500
"""The scale in requests on which the stake is put down within the windows."""

_NOTHING = -500.0
"""The logarithm of a stake that is lost: finite, because JSON has no infinity."""


def stable_rate(counts: Counts) -> float:
    """The old version's rate of failures, as far as it is known: never 0 and never 1."""
    return (counts.stable_failures + _GUESS * _GUESS_WEIGHT) / (counts.stable + _GUESS_WEIGHT)


def window_part(window: int) -> float:
    """Which part of the stake is put down when this window begins; the first one is number 1. The sum is a half."""
    return 0.5 / (window * (window + 1))


def put_down(bets: Sequence[float], part: float) -> list[float]:
    """The bets with so much more of the stake on them."""
    before = bets or [_NOTHING] * len(RUNGS)
    if part <= 0:
        return list(before)
    return [_sum(bet, math.log(part)) for bet in before]


def within_part(before: int, now: int) -> float:
    """Which part is put down while the rollout's requests of the new version grow; the sum is a half."""
    return 0.5 / (1 + math.log1p(before / _SOON)) - 0.5 / (1 + math.log1p(now / _SOON))


def grown(bets: Sequence[float], new: Counts, stable: float, allowed: float, matters: float) -> list[float]:
    """The bets after what came since the last look. `stable` is the old version's rate as it was known before that."""
    return [
        max(_NOTHING, bet + _factor(new, rate, stable, allowed))
        for bet, rate in zip(bets, rates(stable, allowed, matters), strict=True)
    ]


def stake(bets: Sequence[float]) -> float:
    """The logarithm of all that the bets are worth."""
    total = -math.inf
    for bet, (_, part) in zip(bets, RUNGS, strict=False):
        total = _sum(total, bet + math.log(part))
    return total


def rates(stable: float, allowed: float, matters: float) -> list[float]:
    """Which rate of the new version each bet is on."""
    return [min(0.999, stable + allowed + rung * (matters - allowed)) for rung, _ in RUNGS]


def nearest(a: float, b: float, weight: float, allowed: float) -> tuple[float, float]:
    """The pair of rates, the new version's higher by just what is allowed, that is nearest to (a, b); `weight` is the
    new version's part of the requests. (a, b) itself when it keeps what is allowed.
    """
    if a - allowed <= b:
        return a, b

    def slope(q: float) -> float:
        p = q + allowed
        return weight * (p - a) / (p * (1 - p)) + (1 - weight) * (q - b) / (q * (1 - q))

    q = _root(slope, b, a - allowed)
    return q + allowed, q


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where the function, which rises from below 0 at `low` to above 0 at `high`, is 0 (by the Illinois rule: regula
    falsi that halves the value at an end that stays).
    """
    at_low, at_high = rising(low), rising(high)
    middle = low
    for _ in range(100):
        if at_high <= 0 or at_low >= 0:
            return high if at_high <= 0 else low
        before, middle = middle, (low * at_high - high * at_low) / (at_high - at_low)
        value = rising(middle)
        if abs(middle - before) <= 1e-14 or value == 0:
            break
        if value > 0:
            high, at_high, at_low = middle, value, at_low / 2
        else:
            low, at_low, at_high = middle, value, at_high / 2
    return middle


def _factor(new: Counts, a: float, b: float, allowed: float) -> float:
    """The logarithm of what a bet on (a, b) is multiplied with."""
    if not new.canary or not new.stable:
        return 0.0
    p, q = nearest(a, b, new.canary / (new.canary + new.stable), allowed)
    return (
        new.canary_failures * math.log(a / p)
        + (new.canary - new.canary_failures) * math.log((1 - a) / (1 - p))
        + new.stable_failures * math.log(b / q)
        + (new.stable - new.stable_failures) * math.log((1 - b) / (1 - q))
    )


def _sum(one: float, other: float) -> float:
    """The logarithm of the sum of two numbers given by theirs."""
    high, low = max(one, other), min(one, other)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
