"""Envoys that others started report what they carry: it is counted, and waited for."""

from __future__ import annotations

import asyncio
import re

import pytest
from ports import free_port

from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode
from milkrun.router.diff import diff
from milkrun.router.envoy import ads
from milkrun.router.instance_traffic import InstanceLedger
from milkrun.router.traffic import Ledger

from .conftest import GOAT, asked, converge, of, state
from .test_strangers import PLAIN, WITHIN_S, Stranger, told

A = InstanceId("a1")
REPORTS = r"cluster_manager:\n(  .*\n)+"


@pytest.fixture
async def far(stand, apps, tmp_path):
    """An Envoy elsewhere before a1 and a2, halves of a version; `stand.far` is its address."""
    at, listen = told(stand), f"127.0.0.1:{free_port()}"
    await stand.start(state({"1": 10_000}, **{"1": [apps["a1"].server(), apps["a2"].server()]}))
    stand.far = f"http://{listen}"
    texts = {"127.0.0.1:9000": listen, "port_value: 18000": f"port_value: {at[10:]}"}
    async with Stranger(tmp_path, PLAIN, **texts) as found:
        await found.serves(stand.far)
        yield found


async def until(fact) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await fact():
            await asyncio.sleep(0.05)


async def test_what_another_envoy_carries_is_in_the_figures(far, stand, apps, session):
    plane = stand.envoys[-1].of(GOAT)
    versions, each = Ledger(), InstanceLedger()

    async def counted() -> tuple[int, int, int]:
        nonlocal versions, each
        reading = await plane.traffic()
        versions, each = versions.read(reading), each.read(reading)
        total = versions.total.get(VersionName("1"))
        mine = sum(one.requests for one in each.total.values())
        return (total.requests, total.failures, mine) if total else (0, 0, 0)

    async def reporting() -> bool:
        return any(reporter.follows for reporter in stand.envoys[-1]._ads.loads.reporters)

    await until(reporting)  # what it carried before it began to report is nobody's
    await counted()
    for number in range(20):
        await asked(session, stand.far, f"/{number}", method="PATCH" if number < 4 else "GET")

    async def all_there() -> bool:
        return await counted() == (20, 4, 20)

    await until(all_there)


async def test_a_drain_waits_for_what_another_envoy_has_in_flight(far, stand, apps, session):
    plane = stand.envoys[-1].of(GOAT)
    a1, a2 = apps["a1"], apps["a2"]
    a1.gate.clear()
    a1.entered.clear()
    async with asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(asked(session, stand.far, "/held")) for _ in range(4)]
        await a1.entered.wait()
        wanted = state({"1": 10_000}, **{"1": [a1.server(Mode.DRAIN), a2.server()]})
        await plane.apply(diff(await plane.observe(), wanted), wanted)

        async def followed() -> bool:
            before = len(a1.asked)
            for _ in range(8):
                assert (await asked(session, stand.far, "/"))[1] == "a2"
            return len(a1.asked) == before

        async def reported() -> bool:
            """The drain was followed, and reported on: what is left is only what is in flight."""
            [reporter] = stand.envoys[-1]._ads.loads.reporters
            return reporter.follows == stand.envoys[-1]._ads._published

        await until(reported)
        assert await followed()
        assert (await plane.observe()).versions["1"][A].in_flight >= 1
        a1.gate.set()
        assert {(await each)[0] for each in held} == {200}

    async def idle() -> bool:
        return (await plane.observe()).versions["1"][A].in_flight == 0

    await until(idle)


async def test_who_reports_nothing_is_an_alarm(stand, apps, tmp_path, monkeypatch):
    monkeypatch.setattr(ads, "SPEAKS_S", 0.0)
    text = re.sub(REPORTS, "", PLAIN)
    assert text != PLAIN
    at, listen = told(stand), f"127.0.0.1:{free_port()}"
    envoy = await stand.start(of(apps["a1"]))
    assert envoy.alarms == []
    texts = {"127.0.0.1:9000": listen, "port_value: 18000": f"port_value: {at[10:]}"}

    async with Stranger(tmp_path, text, **texts) as silent:
        await silent.serves(f"http://{listen}")
        [alarm] = envoy.alarms
        assert "1 Envoy elsewhere (goat/shed)" in alarm
        await converge(envoy, of(apps["a2"]))

    async def nobody() -> bool:
        return not envoy.alarms

    await until(nobody)
    async with Stranger(tmp_path, PLAIN, **texts) as other:
        await other.serves(f"http://{listen}", who="a2")
        await until(nobody)
