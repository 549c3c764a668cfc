"""F30 to F34: what the checks say of instances is not always so."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from .conftest import PLANES, long


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


@long
async def test_f32_one_of_four_answers_5xx_while_its_check_is_good(herd, chance):
    """It is put aside, which is said; its callers see it fail no more; then it is asked again, and serves."""
    for name in "abcd":
        await herd.goat(name, "0.0.1")
    sick = herd.goats[chance.choice("abcd")]
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


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@long
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


@long
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
