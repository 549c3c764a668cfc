from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.checks.damping import Damping, Flaps
from milkrun.registry.nouns import STATUSES

P, W, C = "passing", "warning", "critical"
RESULTS = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 5.0, 20.0, 59.0, 61.0, 200.0]), st.sampled_from(STATUSES))
)
TWO = st.lists(st.tuples(st.sampled_from([0.5, 1.0, 5.0, 20.0, 59.0, 61.0, 200.0]), st.sampled_from([P, C])))


def played(results, shown=P, damping=None):
    """What is shown after each result (seconds since the one before, status), with the time."""
    damping = damping or Damping()
    flaps, now, seen = Flaps(), 0.0, []
    for pause, status in results:
        now += pause
        flaps, shown = damping.after(flaps, shown, status, now)
        seen.append((now, shown))
    return seen


def changes(seen, shown=P):
    found = []
    for at, status in seen:
        if status != shown:
            found.append(at)
            shown = status
    return found


def most_in_a_minute(times):
    return max((sum(1 for at in times if start <= at < start + 60) for start in times), default=0)


def test_one_restart_costs_nothing():
    assert [status for _, status in played([(1, P), (1, C), (1, C), (1, P)])] == [P, C, C, P]


def test_a_check_that_flips_each_second_stays_down_for_as_long_as_it_does():
    seen = played([(1, status) for _ in range(1800) for status in (P, C)])
    assert changes(seen) == [2.0, 3.0, 4.0]
    assert seen[-1][1] == C


def test_after_a_minute_without_a_failure_it_is_believed_again():
    seen = played([(1, P), (1, C), (1, P), (1, C), *[(1, P)] * 61])
    assert changes(seen) == [2.0, 3.0, 4.0, 65.0]


def test_one_failure_starts_the_minute_anew():
    seen = played([(1, P), (1, C), (1, P), (1, C), *[(1, P)] * 59, (1, C), *[(1, P)] * 60])
    assert seen[-1][1] == C


def test_falls_of_long_ago_do_not_count():
    seen = played([(1, P), (1, C), (1, P), (300, C), (1, P)])
    assert seen[-1][1] == P


@given(RESULTS)
def test_getting_worse_is_never_held_back(results):
    for (_, status), (_, shown) in zip(results, played(results), strict=True):
        assert STATUSES.index(shown) >= STATUSES.index(status)


@given(TWO)
def test_at_most_four_changes_a_minute(results):
    assert most_in_a_minute(changes(played(results))) <= 4


@given(RESULTS)
def test_at_most_six_changes_a_minute_with_warnings(results):
    assert most_in_a_minute(changes(played(results))) <= 6


@given(RESULTS, st.sampled_from(STATUSES))
def test_calm_is_always_believed_in_the_end(results, status):
    assert played([*results, *[(10.0, status)] * 8])[-1][1] == status
