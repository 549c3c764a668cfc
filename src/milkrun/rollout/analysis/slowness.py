"""Whether the new version is slower than the old one, with the instance as the unit. Pure.

A thousand requests to one instance are one opinion: instances of one version differ among themselves, by their machines
and neighbours, and a test of pooled requests takes that for a difference of the versions. So each instance counts once,
by the logarithm of its mean, and the versions by the mean of those.

How far apart two equal versions may come by chance is reckoned in two ways. One takes instances to differ by INSTANCES
(10 %) at least, or by what they are seen to, and adds what chance does to a mean of so many answers: it works with one
instance already. The other is Welch's t-test, which takes nothing for granted and needs FEW instances a side; it finds
small differences between many instances that are much alike. A version is slower as soon as one of them says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from milkrun.latency import BOUNDS_US
from milkrun.rollout.analysis.distributions import normal_quantile, student_quantile
from milkrun.rollout.analysis.verdict import Seen

INSTANCES = 0.1
"""By how much (a standard deviation, as a part) instances of one version are taken to differ at least."""

FEW = 4
"""So many instances on each side the t-test needs: with fewer it would find nothing."""

ENOUGH = 50
"""With fewer requests in the window an instance's mean is no mean."""

MEAN_OF = 1024
"""HAProxy's mean is of so many answers at most."""

GRAIN_MS = 1.0
"""HAProxy counts in whole milliseconds: means that differ by less may be the same."""

_LESS = 0.8
"""By what factor fewer may be missed by the reckoning than are promised to be."""

_QUICKEST_MS, _SLOWEST_MS = 0.001, 1e9
"""Means beyond are nobody's: no number overflows between them."""

_TIMED = 100
_WIDE = 1.0
"""The answers' spread, as a part of their mean, where fewer than _TIMED of them were timed."""


class Side(msgspec.Struct, frozen=True):
    """The instances of one version: the logarithms of their means, and of how many answers each mean is."""

    logs: list[float]
    answers: list[int]

    @property
    def mean(self) -> float:
        """The mean of the logarithms."""
        return sum(self.logs) / len(self.logs)

    @property
    def squares(self) -> float:
        """The squares of what the logarithms are off their mean, together."""
        mean = self.mean
        return sum((log - mean) ** 2 for log in self.logs)

    @property
    def chance(self) -> float:
        """The variance of the mean that comes from too few answers, for answers as wide as their mean."""
        return sum(1 / count for count in self.answers) / len(self.answers) ** 2


class Difference(msgspec.Struct, frozen=True):
    """How much slower the new version seems (`log`: the logarithm of the ratio), and what it may be off by chance.

    `error` is the standard error of the first way, of which `machines` is the variance that more requests do not take
    away. `welch` is the second way's, with its degrees of freedom `df`; 0 with too few instances.
    """

    canary: Side
    stable: Side
    log: float
    error: float
    machines: float
    welch: float
    df: float


def side(seen: Seen) -> Side:
    """The instances that have a mean."""
    known = [
        one
        for _, one in sorted(seen.instances.items())
        if one.requests >= ENOUGH and 0 < one.mean_ms < math.inf
    ]
    return Side(
        [math.log(min(_SLOWEST_MS, max(_QUICKEST_MS, one.mean_ms))) for one in known],
        [min(one.requests, MEAN_OF) for one in known],
    )


def difference(canary: Side, stable: Side, spread: float) -> Difference:
    """How the versions differ. Both have an instance at least; `spread` is the answers', as a part of their mean."""
    a, b = len(canary.logs), len(stable.logs)
    both = 1 / a + 1 / b
    seen = (canary.squares + stable.squares) / (a + b - 2) if a + b > 2 else 0.0
    taken = INSTANCES**2 * both + spread**2 * (canary.chance + stable.chance)
    welch, df = _welch(canary, stable) if min(a, b) >= FEW else (0.0, 0.0)
    return Difference(
        canary=canary,
        stable=stable,
        log=canary.mean - stable.mean,
        error=math.sqrt(max(taken, seen * both)),
        machines=max(INSTANCES**2, seen - spread**2 / min(canary.answers + stable.answers)) * both,
        welch=welch,
        df=df,
    )


def threshold(difference: Difference, alpha: float) -> float:
    """The least difference (of logarithms) that two equal versions come to with probability `alpha` at most."""
    return grain(difference) + min(quantile * error for quantile, error in _ways(difference, alpha))


def found_from(difference: Difference, alpha: float, power: float) -> float:
    """How much slower (as a logarithm) a version is that is found with probability `power`, by the first way alone:
    what the second one needs is itself an estimate, and the smaller of two estimates promises too much.
    """
    quantile, error = _ways(difference, alpha)[0]
    return grain(difference) + (quantile + _reach(difference, power)) * error


def grain(difference: Difference) -> float:
    """What whole milliseconds may make of no difference at all."""
    return math.log1p(GRAIN_MS * math.exp(-difference.stable.mean))


def needed(difference: Difference, alpha: float, power: float, matters: float, spread: float) -> int | None:
    """How many requests each instance of the new version needs, so that one slower by `matters` (a logarithm) is found
    with probability `power`; None when only more instances could tell.
    """
    quantile, _ = _ways(difference, alpha)[0]
    error = max(0.0, matters - grain(difference)) / (quantile + _reach(difference, power))
    room = error**2 - difference.machines - spread**2 * difference.stable.chance
    if room <= 0:
        return None
    each = math.ceil(spread**2 / (room * len(difference.canary.logs)))
    return max(ENOUGH, each) if each <= MEAN_OF else None


def _reach(difference: Difference, power: float) -> float:
    """How many standard errors beyond the threshold a difference has to be. Student's, because instances that happen
    to differ more than they are taken to raise the threshold; and a little more, because the error is an estimate.
    """
    df = len(difference.canary.logs) + len(difference.stable.logs) - 2
    tail = _LESS * (1 - power)
    return student_quantile(tail, df) if df else normal_quantile(tail)


def _ways(difference: Difference, alpha: float) -> list[tuple[float, float]]:
    """Of each way that can be gone: how many standard errors are too many, and the error."""
    if not difference.df:
        return [(normal_quantile(alpha), difference.error)]
    return [
        (normal_quantile(alpha / 2), difference.error),
        (student_quantile(alpha / 2, difference.df), difference.welch),
    ]


def spread(*histograms: Mapping[int, int]) -> float:
    """The standard deviation of all these answers' times, as a part of their mean."""
    timed = [
        (_middle(number), count)
        for histogram in histograms
        for number, count in histogram.items()
        if count > 0
    ]
    total = sum(count for _, count in timed)
    if total < _TIMED:
        return _WIDE
    mean = sum(time * count for time, count in timed) / total
    return math.sqrt(sum((time - mean) ** 2 * count for time, count in timed) / total) / mean


def _middle(number: int) -> float:
    number = min(max(0, number), len(BOUNDS_US) - 2)
    return (BOUNDS_US[number] + BOUNDS_US[number + 1]) / 2


def _welch(canary: Side, stable: Side) -> tuple[float, float]:
    """The standard error of the difference, and its degrees of freedom (Welch and Satterthwaite)."""
    a, b = len(canary.logs), len(stable.logs)
    one, other = canary.squares / (a - 1) / a, stable.squares / (b - 1) / b
    if one + other < 1e-12:  # means to the millisecond may all be equal: then nothing is known of their noise
        return 0.0, 0.0
    return math.sqrt(one + other), (one + other) ** 2 / (one**2 / (a - 1) + other**2 / (b - 1))
