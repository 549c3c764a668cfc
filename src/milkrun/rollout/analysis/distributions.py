"""Tails and quantiles of the normal, Student's and the binomial distribution, held against scipy by tests. Pure.

The last two stand on the incomplete beta function, by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated
as Lentz does.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_NORMAL = NormalDist()
_TINY = 1e-300
_TERMS = 20_000
"""More than the square root of the largest parameter that is met here, which is about how many it takes."""


def normal_quantile(tail: float) -> float:
    """What a standard normal number exceeds with probability `tail`, which is above 0 and below 1."""
    return -_NORMAL.inv_cdf(tail)


def student_tail(t: float, df: float) -> float:
    """How likely Student's t with `df` degrees of freedom, 1 or more, exceeds `t`."""
    both = beta_part(df / 2, 0.5, df / (df + t * t))
    return both / 2 if t >= 0 else 1 - both / 2


def student_quantile(tail: float, df: float) -> float:
    """What Student's t exceeds with probability `tail`, which is above 0 and at most a half."""
    low, high = 0.0, 1.0
    while student_tail(high, df) > tail:
        low, high = high, high * 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, df) > tail else (low, middle)
    return high


def binomial_tail(least: int, of: int, chance: float) -> float:
    """How likely `least` or more of so many trials succeed."""
    if least <= 0:
        return 1.0
    if least > of or chance <= 0:
        return 0.0
    return beta_part(least, of - least + 1, min(1.0, chance))


def beta_part(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function: the chance that a Beta(a, b) number is at most `x`."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):  # where the fraction converges quickly; elsewhere the mirrored one does
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    upper, lower = 1.0, 1 / _kept_off_zero(1 - (a + b) * x / (a + 1))
    value = lower
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            lower = 1 / _kept_off_zero(1 + term * lower)
            upper = _kept_off_zero(1 + term / upper)
            value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value


def _kept_off_zero(number: float) -> float:
    return number if abs(number) > _TINY else _TINY
