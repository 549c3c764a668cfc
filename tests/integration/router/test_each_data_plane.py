"""What a router's daemon does for its users with either data plane: weights, instances, drains."""

from __future__ import annotations

import asyncio

import pytest
from fleet import a_fleet

from milkrun.testing.registry import embedded_registry


@pytest.fixture(params=["haproxy", pytest.param("envoy", marks=pytest.mark.needs("envoy"))])
def data_plane(request) -> str:
    return request.param


@pytest.fixture
async def fleet(tmp_path, data_plane):
    async with embedded_registry(tmp_path / "registry") as address, a_fleet(tmp_path, address) as found:
        await found.settle(data_plane=data_plane)
        yield found
    # The goats' connections end with the data plane that had them; their tasks are to see that.
    goats = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "answer"]
    await asyncio.gather(*goats)


async def test_weights_by_one_transaction_take_effect_and_are_reported(fleet, data_plane):
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    await fleet.weigh(1, {"0.0.1": 100, "0.0.2": 0})
    async with fleet.router():
        await fleet.reported(lambda report: report.generation == 1)
        assert set(await fleet.answers()) == {"a"}

        commit = await fleet.weigh(2, {"0.0.1": 0, "0.0.2": 7})

        report = await fleet.reported(lambda report: report.commit == commit)
        assert report.generation == 2
        assert {name: figures.share for name, figures in report.versions.items() if figures.share} == {
            "0.0.2": 10_000
        }
        assert (report.reloads, report.drift, report.held, report.alarms) == (0, [], [], [])
        assert report.listen == "{}:{}".format(*fleet.listen)
        assert report.data_plane.startswith(f"{data_plane} ")
        assert set(await fleet.answers()) == {"b"}
        counted = await fleet.reported(lambda report: report.versions["0.0.2"].window.requests >= 40)
        assert counted.versions["0.0.1"].total.requests >= 40
        assert counted.versions["0.0.1"].window.requests == 0
    with pytest.raises(ConnectionRefusedError):
        await fleet.ask()


async def test_an_instance_comes_falls_ill_recovers_rests_and_goes(fleet):
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.1")
    async with fleet.router():
        await fleet.serves("a", "b")
        assert set(await fleet.answers()) == {"a", "b"}

        c = await fleet.goat("c", "0.0.1")
        await fleet.serves("a", "b", "c")

        await fleet.registry.report("service:c", "critical", "cow")
        report = await fleet.serves("a", "b")
        assert report.instances["c"].state == "drained"
        assert set(await fleet.answers()) == {"a", "b"}

        await fleet.registry.report("service:c", "passing", "")
        await fleet.serves("a", "b", "c")

        await fleet.registry.maintenance("c", enable=True, reason="rest")
        _, index = await fleet.registry.health("goat")
        report = await fleet.reported(lambda report: report.catalog_index >= index)
        assert report.instances["c"].state == "drained"
        seen = c.seen
        assert set(await fleet.answers()) == {"a", "b"}
        assert c.seen == seen, "who is in maintenance before the reported index gets nothing"

        await fleet.registry.deregister("c")
        report = await fleet.reported(lambda report: "c" not in report.instances)
        assert report.reloads == 0


async def test_who_still_answers_is_draining_and_then_drained(fleet):
    a = await fleet.goat("a", "0.0.1")
    async with fleet.router(), asyncio.TaskGroup() as tasks:
        await fleet.serves("a")
        a.gate.clear()
        long = tasks.create_task(fleet.ask())
        await a.entered.wait()
        await fleet.goat("b", "0.0.1")
        await fleet.serves("a", "b")

        await fleet.registry.maintenance("a", enable=True, reason="rest")
        report = await fleet.serves("b")

        assert (report.instances["a"].state, report.instances["a"].in_flight) == ("draining", 1)
        assert set(await fleet.answers()) == {"b"}
        a.gate.set()
        assert await long == "a"
        await fleet.reported(lambda report: report.instances["a"].state == "drained")
