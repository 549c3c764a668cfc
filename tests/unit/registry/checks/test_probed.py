"""A probe's result in the registry's machine."""

from __future__ import annotations

import pytest

from milkrun.registry import commands, topics
from milkrun.registry.nouns import CheckSpec


def http(**fields):
    wanted = {
        "check_id": "h",
        "service_id": "goat-1",
        "type": "http",
        "probe": {"http": "http://x"},
        **fields,
    }
    return CheckSpec(**wanted)


@pytest.fixture
def shown(bench):
    return lambda: bench.machine.catalog.checks["n1"]["h"]


def test_a_result_is_shown_and_an_unchanged_one_writes_nothing(bench, goat, shown):
    bench.do(commands.RegisterService(goat(), [http()]))
    bench.do(commands.ReportProbe(http(), "passing", "ok"))
    assert (shown().status, shown().output) == ("passing", "ok")
    index = bench.machine.ledger.index
    bench.do(commands.ReportProbe(http(), "passing", "ok"))
    assert (bench.machine.ledger.index, bench.wrote, bench.touched) == (index, 0, set())


def test_a_result_for_an_older_definition_is_dropped(bench, goat, shown):
    bench.do(commands.RegisterService(goat(), [http()]))
    newer = http(probe={"http": "http://y"})
    bench.do(commands.RegisterService(goat(), [newer]))
    bench.do(commands.ReportProbe(http(), "passing", "ok"))
    assert shown().status == "critical"
    bench.do(commands.DeregisterService("goat-1"))
    bench.do(commands.ReportProbe(newer, "passing", "ok"))
    assert "h" not in bench.machine.catalog.checks["n1"]


def test_a_probed_service_that_stays_critical_is_taken_out(bench, goat):
    bench.do(commands.RegisterService(goat(), [http(deregister_after_s=60)]))
    bench.later(59)
    bench.do(commands.ReportProbe(http(deregister_after_s=60), "passing", "ok"))
    bench.later(1000)
    assert bench.checks("goat") == {"h": "passing"}
    bench.do(commands.ReportProbe(http(deregister_after_s=60), "critical", "no"))
    bench.later(59)
    assert bench.checks("goat") == {"h": "critical"}
    bench.later(2)
    assert bench.checks("goat") == {}


def test_the_runner_is_told_of_every_definition_that_comes_changes_or_goes(bench, goat):
    bench.machine.agent.take_moved()
    for command in (
        commands.RegisterService(goat(), [http()]),
        commands.RegisterService(goat(), [http(probe={"http": "http://y"})]),
        commands.DeregisterService("goat-1"),
    ):
        bench.do(command)
        assert topics.PROBES in bench.touched
        assert bench.machine.agent.take_moved() == {"h"}
    bench.do(commands.RegisterService(goat(), [http()]))
    bench.machine.agent.take_moved()
    bench.do(commands.RegisterService(goat(), [http()]))
    assert bench.machine.agent.take_moved() == set()


def test_definitions_survive_a_restart(bench, goat):
    bench.do(commands.RegisterService(goat(), [http()]))
    bench.do(commands.ReportProbe(http(), "passing", "ok"))
    bench.restart()
    assert bench.machine.agent.specs == {"h": http()}
    assert bench.checks("goat") == {"h": "passing"}
