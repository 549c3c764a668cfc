"""Whether what a watcher was told, one answer after the other, is a stream: in order, without gaps, never back. Pure.

An answer at index i says: below i nothing is missing. So whatever differs in the next answer came after i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec
from linearizability.operations import Entry, Read


class Sight(msgspec.Struct, frozen=True):
    """One answer to a blocking query that asked for what is newer than `asked`."""

    asked: int
    index: int
    entries: tuple[Entry, ...]


def broken(sights: Sequence[Sight]) -> list[str]:
    """All that is wrong with a watcher's answers, in their order; the registry was never set back."""
    found = [why for sight in sights for why in _alone(sight)]
    for before, after in pairwise(sights):
        found += [f"{why}: {before} {after}" for why in _after(before, after)]
    return found


def missed(sights: Sequence[Sight], last: Read) -> str:
    """Why the watcher did not come to what was there at last, empty when it did. It may be further already."""
    if sights and sights[-1].index > last.index:
        return ""
    seen = sights[-1].entries if sights else ()
    return (
        "" if seen == last.entries else f"a lost wake-up: last seen was {seen}, but there is {last.entries}"
    )


def _alone(sight: Sight) -> Iterator[str]:
    if sight.index < 1 or sight.index < sight.asked:
        yield f"the index went back from {sight.asked} to {sight.index}"
    for entry in sight.entries:
        if entry.modify_index > sight.index:
            yield f"{entry.key} at {entry.modify_index} is newer than its answer's index {sight.index}"


def _after(before: Sight, after: Sight) -> Iterator[str]:
    old = {entry.key: entry for entry in before.entries}
    new = {entry.key: entry for entry in after.entries}
    if after.index == before.index and old != new:
        yield "two answers with one index differ"
    for key in old.keys() | new.keys():
        then, now = old.get(key), new.get(key)
        if then == now:
            continue
        if now is None:
            if after.index <= before.index:
                yield f"{key} is gone without a newer index"
        elif then and now.modify_index < then.modify_index:
            yield f"{key} went back from {then.modify_index} to {now.modify_index}"
        elif now.modify_index <= before.index:
            yield f"{key} at {now.modify_index} was missing from the answer at {before.index}"
