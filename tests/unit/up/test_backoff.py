from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.up.backoff import FIRST_S, LAST_S, STEADY_S, Backoff

JITTER = st.floats(0, 1, exclude_max=True)


def test_the_pause_doubles_from_a_tenth_of_a_second_to_ten():
    pauses, backoff = [], Backoff()
    for _ in range(9):
        backoff = backoff.died(0.0)
        pauses.append(backoff.pause_s(1.0))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_steady_life_forgets_the_deaths_before_it():
    backoff = Backoff(8).died(STEADY_S)
    assert backoff.pause_s(1.0) == FIRST_S
    assert Backoff(8).died(STEADY_S - 1).pause_s(1.0) == LAST_S


@given(st.integers(0, 10_000), JITTER)
def test_the_pause_is_bounded_and_never_nothing(deaths: int, jitter: float):
    assert FIRST_S / 2 <= Backoff(deaths).pause_s(jitter) <= LAST_S


def test_two_that_died_together_do_not_start_together():
    assert Backoff(5).pause_s(0.1) < Backoff(5).pause_s(0.9)
