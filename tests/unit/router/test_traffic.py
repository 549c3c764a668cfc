"""Every request is counted once: over new processes, reloads and places that change hands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from milkrun.model import Figures, InstanceTraffic, RouterId, RouterReport, ServiceName, VersionName
from milkrun.model import VersionTraffic as Traffic
from milkrun.router.plane import Counted
from milkrun.router.traffic import FIGURES_S, Cadence, Ledger, former

V1, V2 = VersionName("v1"), VersionName("v2")


def counted(requests, *, process=1, place="goat.a", version=V1, in_flight=0, **more):
    figures = Figures(requests=requests, **more)
    return Counted(process=process, place=place, version=version, in_flight=in_flight, figures=figures)


def total(ledger, version=V1):
    return ledger.report({V1: 1, V2: 1})[version].total


def test_the_first_reading_counts_nothing_and_a_new_place_counts_from_zero():
    ledger = Ledger().read([counted(500)]).read([counted(503), counted(4, place="goat.all/a")])

    assert total(ledger).requests == 7


def test_a_new_process_counts_from_zero_while_the_former_one_counts_on():
    ledger = Ledger().read([counted(500, process=1)])
    ledger = ledger.read([counted(510, process=1), counted(600, process=2)])
    ledger = ledger.read([counted(511, process=1), counted(601, process=2)]).read([counted(602, process=2)])

    assert total(ledger).requests == 10 + 600 + 1 + 1 + 1


def test_a_counter_that_fell_by_half_started_anew():
    assert total(Ledger().read([counted(500)]).read([counted(510)]).read([counted(3)])).requests == 13


def test_a_counter_that_falls_by_one_for_a_moment_counts_nothing_twice():
    ledger = Ledger().read([counted(0)])
    for requests, well in ((500, 400), (499, 399), (502, 402)):
        ledger = ledger.read([counted(requests, answers={"2xx": well}, latency={7: well})])

    assert total(ledger) == Figures(requests=502, answers={"2xx": 402}, latency={7: 402})


def test_a_lane_that_changes_hands_gives_the_next_version_only_what_it_had_itself():
    ledger = Ledger().read([counted(0)]).read([counted(50)])
    ledger = ledger.read([counted(50, version=None)]).read([counted(53, version=V2)])

    assert (total(ledger, V1).requests, total(ledger, V2).requests) == (50, 3)


def test_a_window_starts_with_new_shares_and_the_totals_go_on():
    ledger = Ledger().read([counted(0)]).read([counted(10, failures=1)]).new_window()
    figures = ledger.read([counted(15, failures=2, in_flight=3)]).report({V1: 4_000, V2: 6_000})

    assert figures[V1] == Traffic(
        share=4_000,
        in_flight=3,
        total=Figures(requests=15, failures=2),
        window=Figures(requests=5, failures=1),
    )
    assert figures[V2] == Traffic(share=6_000)


@pytest.mark.parametrize(("timed", "stands_for"), [(100, 8), (70, 11), (400, 1)])
def test_where_few_answers_were_timed_each_stands_for_more(timed, stands_for):
    ledger = Ledger().read([counted(0)]).read([counted(800, latency={5: timed})])

    assert total(ledger).latency == {5: timed * stands_for}


@given(st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=5))
def test_every_request_is_counted_once_over_restarts_of_the_data_plane(lives):
    """Each inner list is one life of a process: what it answered between two readings."""
    ledger = Ledger().read([])
    for process, life in enumerate(lives):
        for end in range(len(life)):
            ledger = ledger.read([counted(sum(life[: end + 1]), process=process)])

    assert total(ledger).requests == sum(map(sum, lives))


def test_what_is_left_of_before_a_reload_is_said_with_its_end():
    def left(in_flight, until, place="goat.a"):
        return replace(counted(9, process=int(until) + 1, place=place, in_flight=in_flight), until=until)

    assert former([left(5, 0.0), left(0, 90.0)]) == []
    assert former([left(2, 90.0), left(1, 90.0, "goat.b"), left(1, 150.0)]) == [
        "3 requests from before a reload may go on until 1970-01-01 00:01:30 UTC",
        "1 request from before a reload may go on until 1970-01-01 00:02:30 UTC",
    ]


REPORT = RouterReport(
    router=RouterId("lb"),
    service=ServiceName("goat"),
    host="shed",
    listen="",
    stats="",
    commit=None,
    generation=1,
    applied_at=0,
    catalog_index=1,
    versions={V1: Traffic(share=10_000)},
    instances={"a": InstanceTraffic(state="serving")},
)


def test_news_is_written_at_once_and_figures_now_and_then():
    cadence = Cadence()
    more = replace(REPORT, versions={V1: Traffic(share=10_000, total=Figures(requests=1))})
    busy = replace(
        more, instances={"a": InstanceTraffic(state="serving", in_flight=2, requests=9, mean_ms=3)}
    )
    drained = replace(busy, instances={"a": InstanceTraffic(state="drained")})

    assert cadence.due(REPORT, 100)
    assert not cadence.due(REPORT, 900)
    assert cadence.due(more, 900)
    assert not cadence.due(busy, 900.1)
    assert not cadence.due(replace(busy, former=["1 request"]), 900.1)
    assert cadence.due(drained, 900.2)
    assert cadence.due(replace(more, generation=2), 900.3)
    assert cadence.due(replace(busy, generation=2), 900.3 + FIGURES_S)
