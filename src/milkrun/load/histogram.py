"""A histogram that knows any quantile to within 0.4 %, in bounded memory, and can be merged. Pure."""

from __future__ import annotations

import math

_EXACT_BITS = 8
_HALF = 1 << (_EXACT_BITS - 1)
_HIGHEST = (1 << 53) - 1
"""Values above are counted as this one: 104 days in nanoseconds. So there are at most 6016 buckets."""


class Histogram:
    """Counts of whole numbers ≥ 0, in buckets as wide as 1/128 of their value (1 below 256).

    The buckets are HdrHistogram's: the highest eight bits of a value and how far they are shifted name its
    bucket, so recording needs no logarithm, and histograms of several recorders add up without error.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.lowest = 0
        self.highest = 0

    def record(self, value: int) -> None:
        """The value is counted. `lowest` and `highest` are exact."""
        value = min(max(0, value), _HIGHEST)
        self.lowest = min(self.lowest, value) if self.count else value
        self.highest = max(self.highest, value)
        self.count += 1
        bucket = _bucket(value)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """All that `other` counted is counted here too."""
        if not other.count:
            return
        self.lowest = min(self.lowest, other.lowest) if self.count else other.lowest
        self.highest = max(self.highest, other.highest)
        self.count += other.count
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count

    def quantile(self, fraction: float) -> int:
        """The smallest value that at least `fraction` of all are not above (nearest rank); 0 when empty."""
        rank = max(1, math.ceil(fraction * self.count))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(max(_middle(bucket), self.lowest), self.highest)
        return self.highest

    @property
    def buckets(self) -> int:
        """How many buckets hold a count."""
        return len(self._counts)


def _bucket(value: int) -> int:
    shift = max(0, value.bit_length() - _EXACT_BITS)
    return shift * _HALF + (value >> shift)


def _middle(bucket: int) -> int:
    shift = max(0, bucket // _HALF - 1)
    return ((bucket - shift * _HALF) << shift) + ((1 << shift) >> 1)
