from hypothesis import given
from hypothesis import strategies as st

from milkrun.agent.order import starting_order, stopping_waves


def test_who_needs_another_stops_before_it_and_starts_after_it():
    needs = {"farmer": ["goat"], "goat": [], "shop": ["farmer", "goat"], "fence": []}
    assert stopping_waves(needs) == [["fence", "shop"], ["farmer"], ["goat"]]
    assert starting_order(needs) == ["goat", "farmer", "fence", "shop"]


def test_a_circle_stops_all_the_same():
    assert stopping_waves({"a": ["b"], "b": ["a"]}) == [["a", "b"]]
    assert stopping_waves({"a": ["a"], "b": ["elsewhere"]}) == [["a", "b"]]


names = st.sampled_from("abcdef")


@given(st.dictionaries(names, st.lists(names)))
def test_each_service_is_in_exactly_one_wave(needs):
    assert sorted(name for wave in stopping_waves(needs) for name in wave) == sorted(needs)
