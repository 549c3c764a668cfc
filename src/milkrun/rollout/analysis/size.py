"""How many requests it takes to find a version that fails too often, 9 times in 10. Pure."""

from __future__ import annotations

import math

from milkrun.rollout.analysis.distributions import normal_quantile
from milkrun.rollout.analysis.failures import nearest

POWER = 0.9

_MORE = 1.15
"""The old version's rate is an estimate, and a bet is drawn at a look only."""


def needed(stable: float, per_canary: float, allowed: float, matters: float, stake: float) -> int | None:
    """The requests of the new version after which the bet on `matters` has won with probability POWER, if that is how
    much worse it is; None when no number is enough. `per_canary` is how many of the old version come with each, and
    `stake` the logarithm of what the bet has to multiply itself with.

    The bet's logarithm is a sum over the requests; mean and variance of a summand follow from the rates, and the sum
    is taken for normal.
    """
    a = min(0.999, stable + matters)
    p, q = nearest(a, stable, 1 / (1 + per_canary), allowed)
    mean_a, variance_a = _summand(a, p)
    mean_b, variance_b = _summand(stable, q)
    mean, variance = mean_a + per_canary * mean_b, variance_a + per_canary * variance_b
    if mean <= 1e-12:
        return None
    z = normal_quantile(1 - POWER) * math.sqrt(variance)
    root = (z + math.sqrt(z * z + 4 * mean * stake)) / (2 * mean)
    return math.ceil(_MORE * root * root)


def _summand(rate: float, null: float) -> tuple[float, float]:
    """Mean and variance of the logarithm of one request's likelihood ratio, if `rate` is true."""
    failure, success = math.log(rate / null), math.log((1 - rate) / (1 - null))
    return rate * failure + (1 - rate) * success, rate * (1 - rate) * (failure - success) ** 2
