"""Smoke tests, hooks and numbers against real programs and a real HTTP server."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from aiohttp import web
from ports import free_port

from milkrun.model import Health, Instance, InstanceId, ServiceName, VersionName
from milkrun.rollout.analysis.verdict import Outcome
from milkrun.rollout.calls import Calls
from milkrun.rollout.plan import plan
from milkrun.settings.rollout import (
    AnalysisSettings,
    CheckSettings,
    HookSettings,
    RolloutSettings,
    SmokeSettings,
)

BASE = b'{"version=0.0.1": {"weight": 100, "replicas": 1}}\n'
GOAT, NEW = ServiceName("goat"), VersionName("0.0.2")


def drawn(**settings):
    return plan("r1", GOAT, NEW, BASE, RolloutSettings(**settings))


def instance(port: int, number: int = 1) -> Instance:
    return Instance(
        id=InstanceId(f"goat-{number}"),
        service=GOAT,
        version=NEW,
        address="127.0.0.1",
        port=port,
        health=Health.PASSING,
    )


@pytest.fixture
async def server():
    """Says what it is told to, and remembers what it was told."""
    said = SimpleNamespace(status=200, body="milk", got=[], asked=[])

    async def answer(request: web.Request) -> web.Response:
        said.asked.append(str(request.rel_url))
        if request.method == "POST":
            said.got.append(await request.json())
        return web.Response(status=said.status, text=said.body)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    said.port = free_port()
    await web.TCPSite(runner, "127.0.0.1", said.port).start()
    said.url = f"http://127.0.0.1:{said.port}"
    yield said
    await runner.cleanup()


@pytest.fixture
async def calls(tmp_path):
    calls = Calls(tmp_path)
    yield calls
    await calls.close()


async def test_smoke_by_path(calls, server):
    plan = drawn(smoke=SmokeSettings(path="/milk", contains="milk", timeout_s=2))
    assert (await calls.smoke(plan, [instance(server.port)])).good
    server.body = "water"
    result = await calls.smoke(plan, [instance(server.port)])
    assert (result.good, "without 'milk'" in result.said) == (False, True)
    server.status = 500
    assert "answered 500" in (await calls.smoke(plan, [instance(server.port)])).said
    assert not (await calls.smoke(plan, [instance(free_port())])).good


async def test_one_bad_instance_is_enough(calls, server):
    plan = drawn(smoke=SmokeSettings(path="/milk", timeout_s=2))
    result = await calls.smoke(plan, [instance(server.port), instance(free_port(), 2)])
    assert (result.good, result.said.startswith("goat-2")) == (False, True)


async def test_nobody_to_test_is_no_success(calls):
    assert not (await calls.smoke(drawn(smoke=SmokeSettings(path="/")), [])).good


async def test_nothing_to_test_with_is_said(calls):
    result = await calls.smoke(drawn(), [])
    assert (result.good, "nothing to test with" in result.said) == (True, True)


async def test_smoke_by_command_knows_the_instance_and_not_the_token(calls, server, monkeypatch, tmp_path):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
    script = tmp_path / "smoke.py"
    script.write_text("import os, sys; print(sys.argv[1:], dict(os.environ)); sys.exit(3)")
    plan = drawn(smoke=SmokeSettings(command=["{python}", "smoke.py", "{url}", "{version}"], timeout_s=20))
    result = await calls.smoke(plan, [instance(server.port)])
    assert (result.good, "ended with 3" in result.said) == (False, True)
    script.write_text("import os, sys; sys.exit('CONSUL_HTTP_TOKEN' in os.environ or sys.argv[2] != '0.0.2')")
    assert (await calls.smoke(plan, [instance(server.port)])).good


async def test_a_program_that_hangs_is_stopped(calls, server):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    plan = drawn(smoke=SmokeSettings(command=command, timeout_s=0.3))
    assert "took more than 0.3 s" in (await calls.smoke(plan, [instance(server.port)])).said


async def test_hooks_run_in_their_phase_and_the_first_bad_one_ends_them(calls, server, tmp_path):
    hooks = [
        HookSettings(phase="before", url=f"{server.url}/before"),
        HookSettings(phase="before", command=[sys.executable, "-c", "raise SystemExit(1)"]),
        HookSettings(phase="before", url=f"{server.url}/never"),
        HookSettings(phase="done", url=f"{server.url}/done"),
    ]
    plan = drawn(hooks=hooks)
    result = await calls.hooks(plan, "before", {"event": "hook"})
    assert (result.good, server.asked) == (False, ["/before"])
    assert (await calls.hooks(plan, "done", {"event": "hook"})).good
    assert server.got == [{"event": "hook"}] * 2


async def test_who_cannot_be_told_holds_nobody_up_for_ever(calls, server, monkeypatch):
    monkeypatch.setattr("milkrun.rollout.calls.TOLD_TIMES", 1)
    await calls.tell([f"http://127.0.0.1:{free_port()}/", server.url], {"event": "done"})
    assert server.got == [{"event": "done"}]


@pytest.mark.parametrize(
    ("body", "field", "outcome"),
    [
        ("0.5", "", Outcome.PASS),
        ("7", "", Outcome.FAIL),
        ('{"a": {"b": "0.5"}}', "a.b", Outcome.PASS),
        ('{"a": 1}', "a.b", Outcome.INCONCLUSIVE),
        ("true", "", Outcome.INCONCLUSIVE),
        ("NaN", "", Outcome.INCONCLUSIVE),
        ("no number", "", Outcome.INCONCLUSIVE),
    ],
)
async def test_a_number_by_http(calls, server, body, field, outcome):
    server.body = body
    check = CheckSettings(name="errors", url=server.url + "/{version}", field=field, max=1.0)
    [found] = await calls.numbers(drawn(analysis=AnalysisSettings(checks=[check])))
    assert (found.outcome, server.asked) == (outcome, ["/0.0.2"])


async def test_a_number_of_prometheus(calls, server):
    check = CheckSettings(name="errors", prometheus=server.url, query='rate{v="{version}"}', min=1.0)
    plan = drawn(analysis=AnalysisSettings(checks=[check]))
    server.body = '{"data": {"result": [{"value": [1, "0.5"]}]}}'
    [found] = await calls.numbers(plan)
    assert (found.outcome, "at least 1" in found.said) == (Outcome.FAIL, True)
    server.body = '{"data": {"result": []}}'
    [found] = await calls.numbers(plan)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "rate" in server.asked[0]


async def test_a_number_of_a_command(calls):
    check = CheckSettings(name="errors", command=[sys.executable, "-c", "print(3)"], max=2.0)
    [found] = await calls.numbers(drawn(analysis=AnalysisSettings(checks=[check])))
    assert (found.outcome, found.canary) == (Outcome.FAIL, 3.0)
