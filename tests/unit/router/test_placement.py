"""A user stays where it is: by random histories of shares, and by the histories that rollouts make."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.model import SHARE_SLOTS, VersionName
from milkrun.router.desired import slots
from milkrun.router.placement import Span, place, tidy, totals

V1, V2, V3 = (VersionName(f"0.0.{number}") for number in (1, 2, 3))
NAMES = [VersionName(f"v{number}") for number in range(6)]

weights = st.dictionaries(st.sampled_from(NAMES), st.floats(0.001, 1000), min_size=1).map(slots)
histories = st.lists(weights, min_size=2, max_size=12)


def owners(placement) -> list[str]:
    """Who has each slot."""
    found = [""] * SHARE_SLOTS
    for first, last, version in map(msgspec.structs.astuple, placement):
        assert found[first : last + 1] == [""] * (last + 1 - first)
        found[first : last + 1] = [version] * (last + 1 - first)
    return found


def all_of(placement, version) -> set[int]:
    return {slot for slot, owner in enumerate(owners(placement)) if owner == version}


@given(histories)
@settings(max_examples=150, deadline=None)
def test_no_slot_moves_that_need_not(history):
    placement = place((), history[0])
    for before, after in itertools.pairwise(history):
        new = place(placement, after)

        moved = sum(one != other for one, other in zip(owners(placement), owners(new), strict=True))
        needed = sum(max(0, share - after.get(version, 0)) for version, share in before.items())
        assert totals(new) == after
        assert moved == needed
        placement = new


@given(histories)
@settings(max_examples=150, deadline=None)
def test_who_grows_keeps_its_users_and_who_shrinks_gets_no_others(history):
    placement = place((), history[0])
    for before, after in itertools.pairwise(history):
        new = place(placement, after)
        for version in before.keys() | after.keys():
            old_users, users = all_of(placement, version), all_of(new, version)
            grows = after.get(version, 0) >= before.get(version, 0)
            assert old_users <= users if grows else users <= old_users
        placement = new


@given(st.lists(st.integers(0, SHARE_SLOTS), min_size=1, max_size=30))
def test_of_two_versions_each_has_one_span_whatever_the_history(shares):
    placement = place((), {V1: SHARE_SLOTS})
    for share in shares:
        wanted = {name: n for name, n in ((V1, SHARE_SLOTS - share), (V2, share)) if n}
        placement = place(placement, wanted)
        assert placement == place((), wanted)


def test_a_canary_that_grows_keeps_its_users():
    users: set[int] = set()
    placement = place((), {V1: SHARE_SLOTS})
    for share in (100, 500, 5_000, SHARE_SLOTS):
        placement = place(placement, slots({V1: SHARE_SLOTS - share, V2: share}))
        assert users < all_of(placement, V2)
        users = all_of(placement, V2)


def test_rollout_after_rollout_stays_in_one_piece():
    placement = place((), {V1: SHARE_SLOTS})
    for old, new in ((V1, V2), (V2, V3)):
        for share in (10, 2_000, 7_500):
            placement = place(placement, {old: SHARE_SLOTS - share, new: share})
            assert len(placement) == 2
        placement = place(placement, {new: SHARE_SLOTS})
    assert placement == (Span(0, SHARE_SLOTS - 1, V3),)


def test_a_long_history_of_many_versions_stays_a_short_map():
    """The map is searched one entry after the other, for each request."""
    import random

    chance = random.Random(7)
    placement = place((), {NAMES[0]: SHARE_SLOTS})
    longest = 0
    for _ in range(2_000):
        some = chance.sample(NAMES, chance.randint(1, 4))
        placement = place(placement, slots({name: chance.random() for name in some}))
        longest = max(longest, len(placement))
    assert longest <= 16


@pytest.mark.parametrize("before", [(), (Span(0, 99, V1),), (Span(0, SHARE_SLOTS, V1),)])
def test_a_placement_that_is_none_is_made_anew(before):
    assert place(before, {V1: 9_000, V2: 1_000}) == (Span(0, 8_999, V1), Span(9_000, 9_999, V2))


def test_nobody_has_nothing():
    assert place((Span(0, SHARE_SLOTS - 1, V1),), {}) == ()


@given(weights, st.randoms())
@settings(deadline=None)
def test_tidied_pieces_are_the_whole(shares, chance):
    whole = place((), shares)
    pieces = []
    for span in whole:
        cut = chance.randint(span.first, span.last)
        pieces += [Span(span.first, cut, span.version), Span(cut + 1, span.last, span.version)]
    chance.shuffle(pieces)
    assert tidy(piece for piece in pieces if piece.size) == whole
