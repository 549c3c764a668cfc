"""F30 to F34: what the checks say of instances is not always so."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from milkrun.consul import keys
from milkrun.model import CommitId, CommitMark
from milkrun.router import ejection
from milkrun.settings.service import EjectionSettings, PublishedService, ServiceSettings, TrafficSettings

from .conftest import PLANES, PLANES_OF_LONG


@pytest.mark.parametrize("plane", PLANES)
async def test_f30_all_instances_fail_their_checks_at_once(herd, chance):
    """Then the checks may be what is broken: the stable ones all serve, which is said; and they recover."""
    await herd.three()
    order = chance.sample("abc", 3)
    async with herd.router(), herd.load():
        await herd.follows(1)
        for name in order:
            await herd.registry.report(f"service:{name}", "critical", "said the test")
        report = await herd.reported(lambda report: report.alarms)
        assert "the checks may be what is broken" in report.alarms[0]
        for name in "ab":
            await herd.more(10, name)
        for name in chance.sample("abc", 3):
            await herd.registry.report(f"service:{name}", "passing", "")
        report = await herd.follows(1)
        for name in "abc":
            await herd.more(5, name)
    herd.proved()
    assert (report.alarms, report.reloads) == ([], 0)


async def test_f31_one_of_three_flaps(herd, chance):
    """Its check does, or it dies and comes back: no request is lost, no other one is touched, nothing reloaded."""
    goats = await herd.three()
    flapping = goats[chance.choice("abc")]
    async with herd.router(), herd.load():
        await herd.follows(1)
        for _ in range(6):
            if chance.random() < 0.5:
                await herd.registry.report(f"service:{flapping.name}", "critical", "cow")
                await herd.more(chance.randrange(1, 20))
                await herd.registry.report(f"service:{flapping.name}", "passing", "")
            else:
                flapping.kill()
                await herd.more(chance.randrange(1, 20))
                await flapping.start()
            await herd.more(chance.randrange(1, 20))
        await herd.more(10, flapping.name)
        report = await herd.follows(1)
    herd.proved()
    assert (report.reloads, report.alarms) == (0, [])


async def test_f32_one_accepts_and_hangs_up(herd, chance):
    """Its requests that nobody read are the others'."""
    goats = await herd.three()
    sick = goats[chance.choice("abc")]
    async with herd.router(), herd.load():
        await herd.follows(1)
        sick.kill()
        async with await asyncio.start_server(_hang_up, "127.0.0.1", sick.port):
            await herd.more(100)
        await sick.start()
        await herd.more(10, sick.name)
    herd.proved()


async def test_f32_one_of_four_answers_5xx_while_its_check_is_good(herd, chance):
    """It is put aside, which is said; its callers see it fail no more; then it is asked again, and serves."""
    sick = await _four(herd, chance)
    async with herd.router(), herd.load():
        await herd.follows(0)
        sick.status = chance.choice([500, 502, 503])
        report = await herd.reported(lambda report: report.alarms)
        await herd.more(100)
        sick.status = 200
        await herd.more(10, sick.name)
        back = await herd.follows(0)
    assert f"{sick.name} of 0.0.1 is put aside" in report.alarms[0]
    assert len(report.alarms) == 1
    assert back.instances[sick.name].failures == sum(herd.figures.failures.values())
    assert (back.reloads, back.drift) == (0, [])


@pytest.mark.parametrize("plane", PLANES_OF_LONG)
async def test_f32_one_of_four_never_answers_while_its_check_is_good(herd, chance, monkeypatch):
    """It is put aside, which is said; whoever waits for it is not cut off, and has an answer when it wakes up."""
    monkeypatch.setattr(ejection, "FIRST_S", 1.0)
    sick = await _four(herd, chance)
    await _ejects(herd, silent_s=1.0)
    async with herd.router(), herd.load():
        await herd.follows(0)
        await herd.more(20, sick.name)
        sick.gate.clear()
        report = await herd.reported(lambda report: report.alarms)
        assert "requests wait for it" in report.alarms[0]
        held = sick.held
        await herd.more(100)
        assert sick.held <= held
        sick.gate.set()
        await herd.more(10, sick.name)
        await herd.follows(0)
    herd.proved()


async def test_f32_one_of_four_is_slow_while_its_check_is_good(herd, chance, monkeypatch):
    """It is put aside, which is said, and asked again when it is quick."""
    monkeypatch.setattr(ejection, "FIRST_S", 1.0)
    monkeypatch.setattr(ejection, "WINDOW_S", 1.0)
    sick = await _four(herd, chance)
    async with herd.router(), herd.load():
        await herd.follows(0)
        sick.slow_s = chance.uniform(0.4, 0.8)
        report = await herd.reported(lambda report: report.alarms)
        assert "its answers take" in report.alarms[0]
        sick.slow_s = 0.0
        await herd.more(10, sick.name)
        await herd.follows(0)
    herd.proved()


async def _four(herd, chance):
    """Four goats of one version, of whom this one is going to be sick."""
    for name in "abcd":
        await herd.goat(name, "0.0.1")
    return herd.goats[chance.choice("abcd")]


async def _ejects(herd, **settings: float) -> None:
    """The service's file says this of who is put aside."""
    traffic = TrafficSettings(ejection=EjectionSettings(**settings))
    mark = CommitMark(commit=CommitId("0" * 40), generation=1)
    published = PublishedService(mark=mark, settings=ServiceSettings(command=["goat"], traffic=traffic))
    await herd.registry.put(f"{keys.SERVICES}goat", msgspec.json.encode(published))


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def test_f33_a_version_that_fails_while_its_check_is_good_is_counted(herd, chance):
    """The router's figures say which version it is: who judges a canary sees it there."""
    goats = await herd.three()
    goats["c"].status = chance.choice([500, 502, 503])
    async with herd.router():
        await herd.follows(1)
        async with herd.load():
            await herd.more(20, "c")
        report = await herd.reported(lambda report: report.versions["0.0.2"].total.failures >= 20)
    assert set(herd.figures.failures) == {f"HTTP {goats['c'].status}"}
    assert report.versions["0.0.2"].total.failures <= len(goats["c"].asked)
    assert report.versions["0.0.1"].total.failures == 0


async def test_f34_the_checks_of_all_fail_and_the_apps_are_fine(herd, chance):
    """The registry's own probes of a health page that is broken everywhere: all serve on."""
    goats = await herd.three()
    for goat in goats.values():
        await probed(herd, goat)
    async with herd.router(), herd.load():
        await herd.follows(1)
        for goat in goats.values():
            goat.health = chance.choice([500, 503, 404])
        report = await herd.reported(lambda report: report.alarms)
        assert "the checks may be what is broken" in report.alarms[0]
        await herd.more(20, "a", "b")
        for goat in goats.values():
            goat.health = 200
        report = await herd.reported(lambda report: not report.alarms)
        report = await herd.follows(1)
    herd.proved()


async def probed(herd, goat) -> None:
    """The goat is registered with an HTTP check of its health page, and the first answer was good."""
    check = {
        "HTTP": f"http://127.0.0.1:{goat.port}/health",
        "Interval": "1s",
        "CheckID": f"probe:{goat.name}",
    }
    body = {
        "ID": goat.name,
        "Name": "goat",
        "Address": "127.0.0.1",
        "Port": goat.port,
        "Tags": [f"version={goat.version}"],
        "Check": check,
    }
    await herd.registry.deregister(goat.name)
    await herd.registry.ask("PUT", "/v1/agent/service/register", body=msgspec.json.encode(body))
