"""The router's daemon from the registry to users: weights, instances, reports."""

from __future__ import annotations

import asyncio
import stat

from milkrun.consul import keys


async def test_nobody_is_drained_while_a_worker_from_before_a_reload_has_requests(fleet):
    """Also a router that did not make that reload itself must know."""
    a = await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.1")
    async with asyncio.TaskGroup() as tasks:
        async with fleet.router(hand_over=True):
            await fleet.serves("a", "b")
            a.gate.clear()
            long = [tasks.create_task(fleet.ask()) for _ in range(4)]
            await a.entered.wait()
            for number in range(8):
                await fleet.goat(f"v{number}", f"1.0.{number}")
            await fleet.reported(lambda report: report.reloads == 1 and not report.drift)
            await fleet.registry.maintenance("a", enable=True, reason="rest")
            _, index = await fleet.registry.health("goat")

            report = await fleet.reported(lambda report: report.catalog_index >= index)

            assert report.instances["a"].in_flight == 0, (
                "the new worker knows nothing of the old one's requests"
            )
            assert report.instances["a"].state == "draining"
        async with fleet.router():
            first = report
            report = await fleet.reported(
                lambda report: report.since > first.since and report.catalog_index >= index
            )
            assert report.reloads == 1, "counted since HAProxy was started"
            assert report.instances["a"].state == "draining"
            a.gate.set()
            assert {await answer for answer in long} <= {"a", "b"}
            await fleet.reported(lambda report: report.instances["a"].state == "drained")


async def test_a_report_whose_session_died_is_written_again(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router():
        report = await fleet.serves("a")
        key = keys.router_report("goat", report.router)
        session = (await fleet.registry.get(key)).session

        await fleet.registry.destroy_session(session)

        assert await fleet.registry.get(key) is None
        await fleet.serves("a")
        assert (await fleet.registry.get(key)).session != session


async def test_nobody_else_may_read_what_the_router_keeps(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router():
        await fleet.serves("a")
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in [fleet.state, *fleet.state.iterdir()]
        }
    assert {"session", "haproxy.cfg", "admin.sock", "master.sock", "haproxy.log"} <= modes.keys()
    assert {name for name, mode in modes.items() if mode & 0o077} == set()
    assert not (fleet.state / "process.json").exists()
