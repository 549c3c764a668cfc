"""The embedded registry runs what was registered with it, from the registration to what others see."""

from __future__ import annotations

import pytest

from milkrun.registry.checks import runner
from milkrun.registry.checks.looks import Looks

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DOWN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


async def test_a_check_is_run_and_an_unchanged_result_changes_nothing(registry, serve, says):
    async with serve(says(OK)) as target:
        await registry.register("web", HTTP=target.url)
        check = await registry.until("web", lambda it: it.status == "passing")
        assert check.output == f"HTTP GET {target.url}: 200 OK Output: ok"
        index, hits = registry.engine.machine.ledger.index, target.hits
        await target.until(lambda: target.hits >= hits + 3)
        assert registry.engine.machine.ledger.index == index


async def test_a_service_that_dies_and_comes_back(registry, serve, says):
    async with serve(says(OK)) as target:
        port = target.port
        await registry.register("tcp", TCP=f"127.0.0.1:{port}")
        await registry.until("tcp", lambda it: it.status == "passing")
    check = await registry.until("tcp", lambda it: it.status == "critical")
    assert check.output == f"dial tcp 127.0.0.1:{port}: connect: connection refused"


async def test_a_new_definition_replaces_the_old_one(registry, serve, says):
    async with serve(says(OK)) as old, serve(says(OK)) as new:
        await registry.register("web", HTTP=old.url)
        await old.until(lambda: old.hits)
        await registry.register("web", HTTP=new.url)
        hits = old.hits
        await new.until(lambda: new.hits >= 3)
        # One look at the old one may have been under way.
        assert old.hits <= hits + 1
        assert (await registry.put("/v1/agent/service/deregister/web", None))[0] == 200
        hits = new.hits
        await registry.register("other", HTTP=old.url)
        await registry.until("other", lambda it: it.status == "passing")
        assert new.hits <= hits + 1


async def test_checks_survive_a_restart_and_one_failure_after_it_brings_nothing_down(start, serve, says):
    async with serve(says(OK)) as target:
        async with start() as registry:
            await registry.register("web", HTTP=target.url, FailuresBeforeCritical=3)
            await registry.until("web", lambda it: it.status == "passing")
        target._serve = says(DOWN)
        async with start() as registry:
            hits = target.hits
            await target.until(lambda: target.hits >= hits + 2)
            assert registry.check("web").status == "passing"
            await registry.until("web", lambda it: it.status == "critical")
            assert target.hits >= hits + 3


async def test_hanging_services_do_not_stop_the_others(registry, serve, says, hangs, monkeypatch):
    monkeypatch.setattr(registry.engine.listeners[0].__self__._rounds, "_places", 8)
    monkeypatch.setattr(registry.engine.listeners[0].__self__._rounds, "_slow_places", 4)
    async with serve(hangs, backlog=200) as bad, serve(says(OK)) as good:
        for number in range(40):
            await registry.register(f"bad{number}", HTTP=bad.url, Timeout="300ms")
        await registry.register("good", HTTP=good.url)
        await registry.until("good", lambda it: it.status == "passing")
        await good.until(lambda: good.hits >= 4)
        assert bad.most_open <= 8
        await registry.until("bad0", lambda it: "deadline exceeded" in it.output)


async def test_an_address_that_is_not_its_own_is_never_asked(registry):
    await registry.register("thief", "10.20.30.40", HTTP="http://10.20.30.41:80/")
    check = await registry.until("thief", lambda it: it.output)
    assert check.status == "critical"
    assert check.output == (
        'Get "http://10.20.30.41:80/": checks may not reach 10.20.30.41: it is neither the service\'s own address '
        "(10.20.30.40) nor loopback; whoever runs this registry can permit it: "
        "milkrun registry --check-allow 10.20.30.41/32, or registry.check_allow in milkrun.toml"
    )
    await registry.register("cloud", "169.254.10.20", TCP="169.254.10.20:1")
    check = await registry.until("cloud", lambda it: it.output)
    assert "checks never reach 169.254.10.20: it is a link-local address" in check.output


async def test_a_check_does_not_read_the_registry_with_its_rights(registry):
    for name, host in (
        ("one", "127.0.0.1"),
        ("two", "localhost"),
        ("three", "127.1"),
        ("four", "[::ffff:127.0.0.1]"),
    ):
        await registry.register(name, HTTP=f"http://{host}:{registry.port}/v1/kv/secret")
        check = await registry.until(name, lambda it: it.output)
        assert check.status == "critical"
        assert "this registry's own" in check.output


async def test_an_alias_follows_at_once(registry):
    await registry.register("goat", TTL="60s", Interval=None, Status="passing")
    await registry.register("kid", AliasService="goat", Interval=None)
    await registry.until("kid", lambda it: it.status == "passing")
    assert (await registry.put("/v1/agent/check/fail/service:goat?note=lame", None))[0] == 200
    check = await registry.until("kid", lambda it: it.status == "critical")
    assert check.output == "Aliased check \"Service 'goat' check\" failing: lame"


async def test_aliases_of_one_another_come_to_rest(registry):
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
        await registry.register(
            one, AliasService=other, Interval=None, Status="passing" if one == "a" else "critical"
        )
    await registry.register("goat", AliasService="nobody", Interval=None)
    await registry.until("goat", lambda it: it.output)
    for name in "abc":
        await registry.until(name, lambda it: it.output)
        assert len(registry.check(name).output) < 200


@pytest.mark.parametrize(
    "check", [{"Args": ["id"]}, {"ScriptArgs": ["id"]}, {"DockerContainerID": "c", "Args": ["id"]}]
)
async def test_no_command_comes_over_the_api(registry, check):
    body = {"Name": "evil", "Check": {"Interval": "1s", **check}}
    status, text = await registry.put("/v1/agent/service/register", body)
    assert (status, text.partition(";")[0]) == (400, "Scripts are disabled on this agent")
    status, _ = await registry.put("/v1/agent/check/register", {"Name": "evil", "Interval": "1s", **check})
    assert status == 400


async def test_a_fault_of_ours_in_one_check_harms_no_other(registry, serve, says, monkeypatch):
    looked = Looks.tcp

    async def faulty(self, look, own, timeout_s):
        if look.address.endswith(":9"):
            raise AttributeError("a bug")
        return await looked(self, look, own, timeout_s)

    monkeypatch.setattr(Looks, "tcp", faulty)
    async with serve(says(OK)) as target:
        await registry.register("poison", TCP="127.0.0.1:9")
        check = await registry.until("poison", lambda it: it.output)
        assert check.output == "this registry could not carry out the check: AttributeError"
        await registry.register("good", TCP=f"127.0.0.1:{target.port}")
        await registry.until("good", lambda it: it.status == "passing")


async def test_damping_can_be_switched_off(start, serve, says):
    for damping, calm in ((runner.Damping(), True), (None, False)):
        async with serve(says(OK)) as target, start(damping=damping) as registry:
            name = f"flap-{calm}"
            await registry.register(name, HTTP=target.url)
            for answer, status in ((OK, "passing"), (DOWN, "critical"), (OK, "passing"), (DOWN, "critical")):
                target._serve = says(answer)
                await registry.until(name, lambda it, status=status: it.status == status)
            target._serve = says(OK)
            if calm:
                hits = target.hits
                await target.until(lambda hits=hits, target=target: target.hits >= hits + 3)
                assert registry.check(name).status == "critical"
            else:
                await registry.until(name, lambda it: it.status == "passing")
