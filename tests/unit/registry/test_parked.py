from __future__ import annotations

import asyncio

from milkrun.registry import topics
from milkrun.registry.parked import Parked, Woken


async def test_only_those_wake_whose_topic_changed():
    parked = Parked()
    wanted = {
        topics.service("goat"): True,
        topics.service("goats"): False,
        topics.key("a/b"): True,
        topics.key("a"): False,
        topics.under("a"): True,
        topics.under("a/"): True,
        topics.under(""): True,
        topics.under("a/b/"): False,
        topics.under("b"): False,
    }
    waiters = {}
    for topic in wanted:
        waiters[topic] = parked.waiting(topic, 60)
    entered = {topic: waiter.__enter__() for topic, waiter in waiters.items()}
    parked.wake({topics.service("goat")}, ["a/b"])
    assert {topic: waiter.done() for topic, waiter in entered.items()} == wanted
    for waiter in waiters.values():
        waiter.__exit__(None, None, None)
    assert len(parked) == 0
    assert not parked._waiters
    assert not parked._prefix_lengths


async def test_a_waiter_goes_on_when_its_time_is_over():
    parked = Parked()
    with parked.waiting("t", 0.01) as waiter:
        assert (await waiter).why is Woken.TIMED_OUT
    assert len(parked) == 0


async def test_closing_wakes_all_and_lets_nobody_wait_any_more():
    parked = Parked()
    with parked.waiting("t", 60) as first:
        parked.close()
        assert (await first).why is Woken.CLOSING
        with parked.waiting("t", 60) as second:
            assert (await second).why is Woken.CLOSING


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind():
    parked = Parked()

    async def wait() -> None:
        with parked.waiting(topics.under("a"), 60) as waiter:
            await waiter

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(wait())
        while not len(parked):
            await asyncio.sleep(0)
        task.cancel()
    assert len(parked) == 0
    assert not parked._waiters


async def test_so_many_wait_in_all_and_of_one_address():
    parked = Parked(in_all=3, per_address=2)
    with parked.waiting("t", 60, "a"):
        assert parked.refusal("a") == ""
        with parked.waiting("t", 60, "a"):
            assert "2 of your address wait already" in parked.refusal("a")
            assert parked.refusal("b") == ""
            with parked.waiting("t", 60, "b"):
                assert "3 wait already" in parked.refusal("b")
            assert parked.refusal("b") == ""
        assert parked.refusal("a") == ""
    assert not parked._by_address
