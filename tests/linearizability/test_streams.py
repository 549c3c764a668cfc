"""The watch validator: streams whose verdict is known."""

from __future__ import annotations

import pytest
from linearizability.operations import Entry, Read
from linearizability.streams import Sight, broken, missed


def at(key: str, index: int, value: bytes = b"") -> Entry:
    return Entry(key=key, value=value or b"%d" % index, create_index=index, modify_index=index)


def stream(*seen: tuple[int, tuple[Entry, ...]]) -> list[Sight]:
    """Each asked with the index of the one before."""
    asked = [0, *(index for index, _ in seen)]
    return [Sight(before, index, entries) for before, (index, entries) in zip(asked, seen, strict=False)]


A5, A7, A9, B6, B8 = at("a", 5), at("a", 7), at("a", 9), at("b", 6), at("b", 8)


@pytest.mark.parametrize(
    "sights",
    [
        stream(),
        stream((5, (A5,))),
        stream((5, (A5,)), (9, (A9,))),
        stream((5, (A5,)), (5, (A5,))),
        stream((5, (A5,)), (7, ())),
        stream((5, ()), (7, ())),
        stream((5, ()), (7, (A7,)), (8, ()), (9, (A9,))),
        stream((6, (A5, B6)), (8, (A7, B8)), (9, (A9, B8))),
        stream((6, (A5,)), (9, (A7, B8))),
    ],
)
def test_good_streams(sights):
    assert broken(sights) == []


@pytest.mark.parametrize(
    ("sights", "why"),
    [
        (stream((9, (A9,)), (5, (A5,))), "the index went back from 9 to 5"),
        (stream((0, ())), "the index went back"),
        (stream((5, (A9,))), "newer than its answer's index"),
        (stream((9, (A9,)), (10, (A7,))), "a went back from 9 to 7"),
        (stream((5, (A5,)), (5, (at("a", 5, b"other"),))), "two answers with one index differ"),
        (stream((5, (A5,)), (9, (at("a", 5, b"other"),))), "a at 5 was missing from the answer at 5"),
        (stream((5, (A5,)), (5, ())), "a is gone without a newer index"),
        (stream((7, (A5,)), (9, (A7, B8))), "a at 7 was missing from the answer at 7"),
        (stream((6, (A5,)), (9, (A9, B6))), "b at 6 was missing from the answer at 6"),
        (stream((8, ()), (9, (A7,))), "a at 7 was missing from the answer at 8"),
    ],
)
def test_broken_streams(sights, why):
    assert [found for found in broken(sights) if why in found]


def test_who_came_to_the_last_answer_or_further_missed_nothing():
    assert missed(stream((5, (A5,)), (9, (A9,))), Read(9, (A9,))) == ""
    assert missed(stream((9, (A9,))), Read(5, (A5,))) == ""
    assert missed(stream((5, ())), Read(8, ())) == "", "no change at all is no news"


def test_who_sleeps_on_missed_the_last_change():
    assert "lost wake-up" in missed(stream((5, (A5,))), Read(9, (A9,)))
    assert "lost wake-up" in missed([], Read(9, (A9,)))
