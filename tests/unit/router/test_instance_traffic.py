"""Each instance's requests are counted once, and no figure goes backwards."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from milkrun.model import InstanceId, InstanceTraffic
from milkrun.router.instance_traffic import MEAN_OVER, REMEMBERED, InstanceLedger
from milkrun.router.plane import Counted, InstanceCounted

A, B = InstanceId("a"), InstanceId("b")


def one(requests, failures=0, mean_ms=0.0, *, tried=None):
    tried = requests if tried is None else tried
    return InstanceCounted(tried=tried, requests=requests, failures=failures, mean_ms=mean_ms)


def lane(*, process=1, asked=True, **instances):
    found = {InstanceId(name): figures for name, figures in instances.items()}
    return Counted(process=process, place="goat.a", version=None, instances=found if asked else None)


def read(*readings):
    ledger = InstanceLedger()
    for reading in readings:
        ledger = ledger.read(reading if isinstance(reading, list) else [reading])
    return {name: replace(figures, took_ms=0.0) for name, figures in ledger.total.items()}


def test_what_was_there_before_the_router_counts_for_nobody_and_who_comes_counts_from_zero():
    total = read(lane(a=one(500, 70)), lane(a=one(503, 71, 12.0), b=one(4)))

    assert total == {A: one(3, 1, 12.0), B: one(4)}


def test_a_new_process_counts_from_zero_and_the_former_one_says_nothing_more():
    first, second = lane(a=one(500)), lane(process=2, a=one(600, 6))

    total = read(first, lane(a=one(510)), [second, lane(asked=False)], [lane(process=2, a=one(601, 6))])

    assert total == {A: one(10 + 601, 6)}


def test_who_left_and_came_again_counts_on():
    total = read(lane(), lane(a=one(50, 5, 3.0)), lane(), lane(a=one(2)), lane(a=one(7, 1)), lane(a=one(3)))

    assert total == {A: one(50 + 7 + 3, 5 + 1, 3.0)}


def test_what_was_counted_while_nobody_asked_is_left_out_and_not_counted_twice():
    total = read(lane(), lane(a=one(50)), lane(asked=False), lane(a=one(90)), lane(a=one(95)))

    assert total == {A: one(55)}


def test_a_difference_of_two_counters_that_falls_for_a_moment_counts_nothing_twice():
    total = read(
        lane(), lane(a=one(9, 2, tried=9)), lane(a=one(8, 1, tried=10)), lane(a=one(10, 2, tried=11))
    )

    assert total == {A: one(10, 2, tried=11)}


def test_a_report_has_the_figures_of_those_that_it_names():
    ledger = InstanceLedger().read([lane()]).read([lane(a=one(5, 1, 2.5))])
    seen = {A: InstanceTraffic(state="serving", in_flight=3), B: InstanceTraffic(state="drained")}

    assert ledger.report(seen) == {
        A: InstanceTraffic(state="serving", in_flight=3, requests=5, failures=1, mean_ms=2.5),
        B: InstanceTraffic(state="drained"),
    }


def test_a_report_of_an_older_router_is_read_and_what_is_zero_is_not_written():
    seen = msgspec.json.decode(b'{"state":"serving","in_flight":2}', type=InstanceTraffic)

    assert (seen.requests, seen.failures, seen.mean_ms) == (0, 0, 0)
    assert msgspec.json.encode(InstanceTraffic(state="drained")) == b'{"state":"drained"}'


def test_of_those_that_left_long_ago_nothing_is_kept():
    crowd = {f"goat-{number}": one(1) for number in range(REMEMBERED)}

    total = read(lane(), lane(a=one(5)), lane(**crowd))

    assert len(total) == REMEMBERED
    assert A not in total


LIVES = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9), max_size=5)), max_size=6)


@given(LIVES)
def test_no_figure_ever_goes_backwards_and_none_is_counted_twice(lives):
    """Each life: whether it begins with another process, and what the instance had between two readings."""
    ledger = InstanceLedger().read([lane()])
    process, before, truth = 1, one(0), 0
    for reloaded, life in lives:
        process += reloaded
        ledger = ledger.read([lane(process=process)])
        for end in range(len(life)):
            had = sum(life[: end + 1])
            ledger = ledger.read([lane(process=process, a=one(had, had // 2))])
            total = ledger.total[A]
            assert (total.requests, total.failures) >= (before.requests, before.failures)
            before = total
        truth += sum(life)

    assert ledger.total.get(A, one(0)).requests == truth


@given(st.lists(st.tuples(st.integers(10, 600), st.integers(0, 5000)), min_size=1, max_size=6))
def test_what_the_answers_between_two_readings_took_is_found_in_the_means(parts):
    """HAProxy tells whole milliseconds of a mean over the last answers; each part: how many, and what each took."""
    ledger = InstanceLedger().read([lane()])
    answers, mean = 0, 0.0
    for count, took_ms in parts:
        before = ledger.total.get(A, one(0))
        for _ in range(count):
            answers += 1
            mean += (took_ms - mean) / min(answers, MEAN_OVER)
        ledger = ledger.read([lane(a=one(answers, mean_ms=int(mean)))])
        found = (ledger.total[A].took_ms - before.took_ms) / count
        assert abs(found - took_ms) <= 2 + 2 * min(answers, MEAN_OVER) / count
