from __future__ import annotations

from milkrun.registry import commands, topics
from milkrun.registry.events import KEPT_AT_MOST, Event, index_of


def event(number: int, name: str = "deploy") -> Event:
    return Event(id=f"{number:08x}-0000-0000-0000-00000000000f", name=name)


def test_an_event_wakes_its_listeners_and_writes_nothing(bench):
    index = bench.machine.ledger.index
    bench.do(commands.HearEvent(event(1)))
    assert bench.touched == {topics.EVENTS}
    assert (bench.wrote, bench.machine.ledger.index) == (0, index)


def test_only_the_last_ones_are_kept_in_order(bench):
    for number in range(KEPT_AT_MOST + 2):
        bench.do(commands.HearEvent(event(number, f"e{number}")))
    kept = bench.machine.events.named(None)
    assert [each.name for each in kept] == [f"e{number}" for number in range(2, KEPT_AT_MOST + 2)]
    assert [each.l_time for each in kept] == sorted(each.l_time for each in kept)


def test_the_index_is_never_0():
    assert index_of([]) == 1
    assert index_of([Event(id="0" * 8 + "-0000-0000-0000-" + "0" * 12, name="x")]) == 1
    assert index_of([event(1)]) == (1 << 32) ^ 0xF
