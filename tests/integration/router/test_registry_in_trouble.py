"""Whatever the registry says or does not say, traffic flows; when it speaks the truth again, the router follows."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

import pytest
from aiohttp import web

from milkrun.consul import keys
from milkrun.errors import NotFound
from milkrun.router import daemon, standing


def answer(text: str | bytes, status: int = 200, **headers: str):
    """The same answer to every question about the service and its weights, with an index that never moves."""
    data = text if isinstance(text, bytes) else text.encode()
    names = {"X-Consul-Index": "7"} | {name.replace("_", "-"): value for name, value in headers.items()}

    def lie(request: web.Request):
        asked = request.path in ("/v1/health/service/goat", "/v1/kv/goat/", f"/v1/kv/{keys.ENVIRONMENT}")
        if request.method != "GET" or not asked:
            return None
        kept = {name: value for name, value in names.items() if value}
        return web.Response(status=status, body=data, headers=kept)

    return lie


LIES = {
    "an empty list": answer("[]"),
    "an empty list, over and over at index 0": answer("[]", X_Consul_Index="0"),
    "500": answer("No cluster leader", 500),
    "403": answer("Permission denied", 403),
    "429": answer("slow down", 429),
    "a redirect": answer("", 302, Location="http://127.0.0.1:1/"),
    "a web page": answer("<html><body>It works!</body></html>"),
    "a web page that was not found": answer("<html>", 404, X_Consul_Index=""),
    "nothing": answer(""),
    "half of it": answer('[{"Node":{"Node":"n","Address":"127.0.0.1"},"Service":{"ID":"a","Serv'),
    "null": answer("null"),
    "another shape": answer('{"Key": "goat/commit"}'),
    "a list of numbers": answer("[1, 2, 3]"),
    "a port that is text": answer(
        '[{"Node":{"Node":"n"},"Service":{"ID":"a","Service":"goat","Port":"80"}}]'
    ),
    "a value that is not base64": answer('[{"Key":"goat/commit","Value":"!!!"}]'),
    "bytes that are no text": answer(b'[{"Key":"\xff\xfe"}]'),
    "a depth without end": answer('[{"x":' + "[" * 200_000),
    "filtered for this token": answer("[]", X_Consul_Results_Filtered_By_ACLs="true"),
    "no leader": answer("[]", X_Consul_KnownLeader="false"),
    "an index of 5,000 digits": answer("[]", X_Consul_Index="9" * 5_000),
    "no index at all": answer("[]", X_Consul_Index=""),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_no_lie_takes_anybody_out_of_service(fleet, lie):
    for name in ("a", "b", "c"):
        await fleet.goat(name, "0.0.1")
    await fleet.goat("d", "0.0.2")
    await fleet.weigh(1, {"0.0.1": 75, "0.0.2": 25})
    async with fleet.router():
        await fleet.serves("a", "b", "c", "d")

        fleet.between.tell(lie)
        await asyncio.wait_for(fleet.between.lied.wait(), 20)

        assert set(await fleet.answers()) == {"a", "b", "c", "d"}
        report = await fleet.serves("a", "b", "c", "d")
        assert report.generation == 1
        fleet.between.truth()
        await fleet.goat("e", "0.0.1")
        await fleet.weigh(2, {"0.0.1": 100, "0.0.2": 0})
        report = await fleet.reported(lambda report: report.generation == 2 and "e" in report.instances)
        assert (report.alarms, report.held, report.reloads) == ([], [], 0)


async def test_an_empty_list_is_an_alarm_and_not_obeyed(fleet):
    """I2, end to end."""
    for name in ("a", "b", "c"):
        await fleet.goat(name, "0.0.1")
    async with fleet.router():
        await fleet.serves("a", "b", "c")

        fleet.between.tell(answer("[]"))

        report = await fleet.reported(lambda report: report.alarms)
        assert "3 of 3 serving instances vanished" in report.alarms[0]
        assert set(await fleet.answers()) == {"a", "b", "c"}
        fleet.between.truth()
        await fleet.reported(lambda report: not report.alarms)


async def test_an_index_that_goes_back_is_followed_from_the_start(fleet):
    """A registry restored from an older snapshot."""
    await fleet.goat("a", "0.0.1")
    _, index = await fleet.registry.health("goat")
    before = (await fleet.registry.ask("GET", "/v1/health/service/goat")).body
    fleet.between.tell(
        lambda request: (
            web.Response(body=before, headers={"X-Consul-Index": "900000"})
            if request.path == "/v1/health/service/goat" and request.query.get("index") != "900000"
            else None
        )
    )
    async with fleet.router():
        await fleet.reported(lambda report: report.catalog_index == 900_000)
        fleet.between.truth()
        await fleet.goat("b", "0.0.1")

        report = await fleet.serves("a", "b")

        assert index < report.catalog_index < 900_000


async def test_a_dead_registry_costs_nothing_and_is_caught_up_with(fleet):
    a = await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.1")
    async with fleet.router():
        await fleet.serves("a", "b")
        await fleet.between.down()
        await fleet.registry.maintenance("a", enable=True)
        await fleet.goat("c", "0.0.1")
        assert set(await fleet.answers()) == {"a", "b"}

        await fleet.between.up()

        await fleet.serves("b", "c")
        assert set(await fleet.answers()) == {"b", "c"}
        assert a.seen


async def test_haproxy_comes_back_by_itself_while_the_registry_is_dead(fleet):
    """I1: from the file on disk."""
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    await fleet.weigh(1, {"0.0.1": 100, "0.0.2": 0})
    async with fleet.router():
        await fleet.serves("a", "b")
        await fleet.between.down()
        for _ in range(2):
            before = fleet.master()
            os.killpg(before, signal.SIGKILL)

            async with asyncio.timeout(20):
                while await answers_or_refuses(fleet) != "a" or fleet.master() == before:
                    await asyncio.sleep(0.01)

        assert set(await fleet.answers()) == {"a"}
        await fleet.between.up()
        await fleet.weigh(2, {"0.0.1": 0, "0.0.2": 100})
        await fleet.reported(lambda report: report.generation == 2 and not report.drift)
        assert set(await fleet.answers()) == {"b"}


async def answers_or_refuses(fleet) -> str:
    try:
        return await fleet.ask()
    except OSError:
        return "refused"


@pytest.mark.parametrize("registry", ["dead", "empty", "lying"])
async def test_a_cold_start_without_a_registry_serves_the_last_good_state(fleet, registry):
    """I1: the whole host was off, and so was the registry."""
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    await fleet.weigh(5, {"0.0.1": 0, "0.0.2": 1})
    async with fleet.router():
        await fleet.reported(lambda report: report.generation == 5 and not report.drift)
    match registry:
        case "dead":
            await fleet.between.down()
        case "lying":
            fleet.between.tell(LIES["an empty list"])
        case "empty":
            for key in (
                "goat/version=0.0.1/weight",
                "goat/version=0.0.2/weight",
                "goat/commit",
                keys.ENVIRONMENT,
            ):
                await fleet.registry.delete(key)
            await fleet.registry.deregister("a")
            await fleet.registry.deregister("b")

    async with fleet.router():
        async with asyncio.timeout(20):
            while await answers_or_refuses(fleet) != "b":
                await asyncio.sleep(0.01)
        if registry == "empty":
            report = await fleet.reported(lambda report: report.held)
            assert "lost the commit" in report.held[0]
        assert set(await fleet.answers()) == {"b"}


async def test_a_first_start_without_settings_says_what_is_missing(fleet, monkeypatch):
    await fleet.registry.delete(keys.ENVIRONMENT)
    monkeypatch.setattr(standing, "SETTINGS_WAIT_S", 0.3)
    gc.unfreeze()

    with pytest.raises(NotFound, match="it has no environment") as caught:
        await daemon.run(
            fleet.registry.address,
            name="lb-goat",
            host="shed",
            state_dir=fleet.state,
            handover=asyncio.Event(),
        )
    assert "gitsync" in caught.value.remedy
    assert gc.get_freeze_count(), "collections of garbage look through all the code"
    gc.unfreeze()


# Generations: invariant I4


async def test_an_older_generation_is_refused_also_after_a_restart_unless_it_is_meant(fleet):
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    newer = await fleet.weigh(9, {"0.0.1": 100, "0.0.2": 0})
    async with fleet.router(hand_over=True):
        await fleet.reported(lambda report: report.generation == 9)

        await fleet.weigh(8, {"0.0.1": 0, "0.0.2": 100})

        report = await fleet.reported(lambda report: report.held)
        assert "older than 9" in report.held[0]
        assert (report.commit, report.generation) == (newer, 9)
        assert set(await fleet.answers()) == {"a"}

    async with fleet.router(hand_over=True):
        # A change that it can only have seen after it read the weights as well.
        await fleet.goat("c", "0.0.1")
        report = await fleet.serves("a", "b", "c")
        assert (report.commit, report.generation) == (newer, 9)
        assert set(await fleet.answers()) == {"a", "c"}

    async with fleet.router(accept_older=True):
        await fleet.reported(lambda report: report.generation == 8 and not report.held)
        assert set(await fleet.answers()) == {"b"}


async def test_half_of_the_facts_are_no_facts(fleet):
    """The instances are known and the weights are not: nothing is told to HAProxy."""
    await fleet.goat("a", "0.0.1")
    await fleet.weigh(1, {"0.0.1": 1})

    def without_weights(request: web.Request):
        return web.Response(status=500, text="no") if request.path == "/v1/kv/goat/" else None

    fleet.between.tell(without_weights)
    async with fleet.router():
        await asyncio.wait_for(fleet.between.lied.wait(), 20)
        async with asyncio.timeout(20):
            while await answers_or_refuses(fleet) != "503":
                await asyncio.sleep(0.01)
        assert set(await fleet.answers(10)) == {"503"}
        fleet.between.truth()
        await fleet.serves("a")
        assert set(await fleet.answers(10)) == {"a"}
