from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.model import InstanceId, VersionName
from milkrun.router.plane import Counters
from milkrun.router.traffic import Ledger

A, V1, V2 = InstanceId("a"), VersionName("v1"), VersionName("v2")


def read(ledger, **counts):
    return ledger.read(
        {InstanceId(name): Counters(requests=count) for name, count in counts.items()},
        {InstanceId(name): V1 for name in counts},
    )


def test_the_first_reading_counts_nothing_and_a_new_server_counts_from_zero():
    ledger = read(read(Ledger(), a=500), a=503, b=4)

    assert ledger.report({V1: 10_000})[V1].requests == 7


def test_a_counter_that_went_down_started_anew():
    ledger = read(read(read(Ledger(), a=500), a=510), a=3)

    assert ledger.report({})[V1].requests == 13


def test_a_server_that_left_and_came_back_counts_from_zero():
    ledger = read(read(read(read(Ledger(), a=0), a=10)), a=2)

    assert ledger.report({})[V1].requests == 12


def test_a_window_starts_with_new_shares_and_the_totals_go_on():
    ledger = read(read(read(Ledger(), a=0), a=10).new_window(), a=15)

    figures = ledger.report({V1: 4_000, V2: 6_000})

    assert (figures[V1].share, figures[V1].requests, figures[V1].window_requests) == (4_000, 15, 5)
    assert (figures[V2].share, figures[V2].requests) == (6_000, 0)


@given(st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=5))
def test_every_request_is_counted_once_over_restarts_of_the_data_plane(lives):
    """Each inner list is one life of a server: what it answered between two readings."""
    ledger = read(Ledger(), a=0)
    expected = 0
    for life in lives:
        count = 0
        for answered in life:
            if count == 0 and answered == 0:
                continue
            count += answered
            ledger = read(ledger, a=count)
        expected += count
        ledger = read(ledger)  # it is gone for a moment: its next life is seen to start anew
    assert ledger.report({V1: 1})[V1].requests == expected
