"""Which of the 10,000 slots are whose, so that a user whose slot is known stays with a version. Pure.

A version whose share grows keeps every slot that it has, and one whose share shrinks gets no other: no user is moved
who need not be. What moves from one version to another is taken where the two meet, in the order of their names: of
two versions the earlier one has the lower slots, whatever the history, so that routers that started at different
times place a user alike. With three and more, routers that saw different histories may place some users differently,
until at most two are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from milkrun.model import VersionName


class Span(msgspec.Struct, frozen=True, array_like=True):
    """The slots from `first` to `last`, both included, are the version's."""

    first: int
    last: int
    version: VersionName

    @property
    def size(self) -> int:
        """How many slots it has."""
        return self.last - self.first + 1


Placement = tuple[Span, ...]


def place(before: Placement, shares: Mapping[VersionName, int]) -> Placement:
    """The placement with these shares, and as few slots in other hands than before as that takes.

    Without one before, and when it has not as many slots as the shares, each version has one span, in their order.
    """
    had = totals(before)
    if had == shares:
        return before
    if sum(had.values()) != sum(shares.values()):
        return _in_order(shares)
    spans = list(before)
    for giver, taker, count in _transfers(had, shares):
        spans = _moved(spans, giver, taker, count)
    return tidy(spans)


def totals(placement: Iterable[Span]) -> dict[VersionName, int]:
    """The slots of each version."""
    found: dict[VersionName, int] = {}
    for span in placement:
        found[span.version] = found.get(span.version, 0) + span.size
    return found


def tidy(spans: Iterable[Span]) -> Placement:
    """The same slots in order, neighbours of one version as one span: equal placements are equal values."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda span: span.first):
        if found and found[-1].version == span.version and found[-1].last + 1 == span.first:
            found[-1] = Span(found[-1].first, span.last, span.version)
        else:
            found.append(span)
    return tuple(found)


def _in_order(shares: Mapping[VersionName, int]) -> Placement:
    spans = []
    start = 0
    for version, share in sorted(shares.items()):
        spans.append(Span(start, start + share - 1, version))
        start += share
    return tuple(spans)


def _transfers(
    had: Mapping[VersionName, int], shares: Mapping[VersionName, int]
) -> Iterator[tuple[VersionName, VersionName, int]]:
    """Who gives how many slots to whom: nobody both gives and takes."""
    names = sorted(had.keys() | shares.keys())
    change = {name: shares.get(name, 0) - had.get(name, 0) for name in names}
    takers = [name for name in names if change[name] > 0]
    for giver in names:
        while change[giver] < 0:
            taker = takers[0]
            count = min(-change[giver], change[taker])
            yield giver, taker, count
            change[giver] += count
            change[taker] -= count
            if not change[taker]:
                del takers[0]


def _moved(spans: Iterable[Span], giver: VersionName, taker: VersionName, count: int) -> list[Span]:
    """The spans after `count` of the giver's slots went to the taker: its highest when the taker comes after it."""
    upper = taker > giver
    found: list[Span] = []
    for span in sorted(spans, key=lambda span: span.first, reverse=upper):
        if span.version != giver or not count:
            found.append(span)
            continue
        moved = min(count, span.size)
        count -= moved
        edge = span.last - moved if upper else span.first + moved - 1
        lower, higher = (giver, taker) if upper else (taker, giver)
        halves = (Span(span.first, edge, lower), Span(edge + 1, span.last, higher))
        found.extend(half for half in halves if half.size)
    return found
