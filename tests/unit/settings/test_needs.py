from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from milkrun.settings.needs import circle, starting_order, stopping_waves


def test_who_needs_another_stops_before_it_and_starts_after_it():
    needs = {"farmer": ["goat"], "goat": [], "shop": ["farmer", "goat"], "fence": []}
    assert stopping_waves(needs) == [["fence", "shop"], ["farmer"], ["goat"]]
    assert starting_order(needs) == ["goat", "farmer", "fence", "shop"]


def test_a_circle_stops_in_one_wave_and_before_what_it_needs():
    assert stopping_waves({"a": ["b"], "b": ["a"]}) == [["a", "b"]]
    assert stopping_waves({"a": ["a"], "b": ["elsewhere"]}) == [["a", "b"]]
    assert stopping_waves({"a": ["b"], "b": ["a", "hay"], "hay": [], "shop": ["a"]}) == [
        ["shop"],
        ["a", "b"],
        ["hay"],
    ]


def test_the_shortest_way_round_a_circle():
    needs = {"a": ["b", "c"], "b": ["c"], "c": ["a"], "d": ["a"]}
    assert circle("a", needs) == ["a", "c", "a"]
    assert circle("b", needs) == ["b", "c", "a", "b"]
    assert circle("d", needs) == []
    assert circle("nobody", needs) == []


NAMES = st.sampled_from("abcdef")
NEEDS = st.dictionaries(NAMES, st.lists(NAMES, unique=True))


def reaches(needs: dict[str, list[str]], start: str, goal: str, seen: frozenset[str] = frozenset()) -> bool:
    return any(
        need == goal or (need not in seen and reaches(needs, need, goal, seen | {need}))
        for need in needs.get(start, [])
    )


@given(NEEDS)
def test_each_service_is_in_one_wave_and_callers_come_first_unless_in_a_circle(needs):
    waves = stopping_waves(needs)
    assert sorted(name for wave in waves for name in wave) == sorted(needs)
    number = {name: at for at, wave in enumerate(waves) for name in wave}
    for caller in needs:
        for called in needs:
            if reaches(needs, caller, called) and caller != called:
                both = reaches(needs, called, caller)
                assert number[caller] == number[called] if both else number[caller] < number[called]


@given(NEEDS)
def test_who_is_in_a_circle_is_shown_a_way_round_it(needs):
    for name in needs:
        way = circle(name, needs)
        assert bool(way) is reaches(needs, name, name)
        assert all(after in needs[before] for before, after in itertools.pairwise(way))
        assert not way or way[0] == way[-1] == name
