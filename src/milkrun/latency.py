"""How long answers took, as counts in buckets that merge by adding and know any quantile to within 5 %. Pure.

A bucket is 4 to 10 % wide, from 10 µs to 100 s, with one for what is quicker and one for what is slower. Bounds
fall on 1, 2 and 5 of every decade, so a coarser histogram, as Prometheus has them, is an exact sum of these.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping

Histogram = Mapping[int, int]
"""How many answers fell into each bucket, by the bucket's number; buckets without any are left out."""

_MANTISSAS = (*range(10, 20), *range(20, 50, 2), *range(50, 100, 5))
_LOWEST, _HIGHEST = 1, 8
"""Decades: from 10 µs up to 10⁸ µs."""

BOUNDS_US: tuple[int, ...] = (
    0,
    *(mantissa * 10 ** (decade - 1) for decade in range(_LOWEST, _HIGHEST) for mantissa in _MANTISSAS),
    10**_HIGHEST,
)
"""Where each bucket begins, in microseconds; it ends where the next one begins."""


def bucket(took_us: int) -> int:
    """The number of the bucket that this time falls into."""
    return bisect_right(BOUNDS_US, max(0, took_us)) - 1


def merged(histograms: Iterable[Histogram]) -> dict[int, int]:
    """All that any of them counted, in the order of the buckets."""
    found: dict[int, int] = {}
    for histogram in histograms:
        for number, count in histogram.items():
            found[number] = found.get(number, 0) + count
    return dict(sorted(found.items()))


def quantile_ms(histogram: Histogram, fraction: float) -> float | None:
    """The time in milliseconds that at least `fraction` of all answers did not exceed (nearest rank); None when
    there is none. Of the last bucket, which has no end, it is the beginning.
    """
    rank = max(1, math.ceil(fraction * sum(histogram.values())))
    seen = 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= rank:
            return _middle_us(number) / 1000
    return None


def quicker(histogram: Histogram, than_us: int) -> int:
    """How many answers took less. Exact when a bucket begins at `than_us`, as at 1, 2 and 5 of each decade."""
    end = bisect_right(BOUNDS_US, than_us) - 1
    return sum(count for number, count in histogram.items() if number < end)


def sum_s(histogram: Histogram) -> float:
    """What all answers took together in seconds, each taken as the middle of its bucket."""
    return sum(_middle_us(number) * count for number, count in histogram.items()) / 1e6


def _middle_us(number: int) -> float:
    """The middle of a bucket; a number that no bucket has counts as the nearest."""
    number = min(max(0, number), len(BOUNDS_US) - 1)
    if number == len(BOUNDS_US) - 1:
        return float(BOUNDS_US[number])
    return (BOUNDS_US[number] + BOUNDS_US[number + 1]) / 2
