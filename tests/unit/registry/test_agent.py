from __future__ import annotations

import pytest

from milkrun.registry import commands, topics
from milkrun.registry.nouns import CheckSpec
from milkrun.registry.refusal import Refused


def ttl(seconds=15.0, **fields):
    wanted = {"check_id": "service:goat-1", "name": "alive", "service_id": "goat-1", **fields}
    return CheckSpec(ttl_s=seconds, **wanted)


def check(bench, check_id="service:goat-1"):
    return bench.machine.catalog.checks["n1"][check_id]


def test_a_ttl_check_expires_only_when_nobody_reports(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl(status="passing")]))
    bench.later(14.9)
    assert check(bench).status == "passing"
    bench.do(commands.ReportCheck("service:goat-1", "passing", "ok"))
    bench.later(14.9)
    assert check(bench).status == "passing"
    bench.later(0.2)
    assert (check(bench).status, check(bench).output) == (
        "critical",
        "TTL expired (last output before timeout follows): ok",
    )
    assert topics.service("goat") in bench.touched


def test_an_expired_check_says_so_once_however_often_it_expires(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl()]))
    bench.later(20)
    assert check(bench).output == "TTL expired"
    bench.do(commands.RegisterService(goat(), [ttl()]))
    bench.later(20)
    assert check(bench).output == "TTL expired"


def test_the_same_report_changes_nothing_but_the_clock(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl()]))
    bench.do(commands.ReportCheck("service:goat-1", "passing", "ok"))
    index = bench.machine.ledger.index
    bench.now += 10
    bench.do(commands.ReportCheck("service:goat-1", "passing", "ok"))
    assert (bench.machine.ledger.index, bench.wrote, bench.touched) == (index, 0, set())
    bench.later(10)
    assert check(bench).status == "passing"


def test_registering_the_same_again_changes_nothing(bench, goat):
    registration = commands.RegisterService(goat(tags=["a"], port=1), [ttl(status="passing")])
    bench.do(registration)
    index = bench.machine.ledger.index
    bench.do(registration)
    assert (bench.machine.ledger.index, bench.wrote, bench.touched) == (index, 0, set())


def test_a_restart_gives_every_ttl_its_whole_time_again(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl(status="passing")]))
    bench.now += 3600
    bench.restart()
    bench.later(14.9)
    assert check(bench).status == "passing"
    bench.later(0.2)
    assert check(bench).status == "critical"


def test_a_service_that_stays_critical_is_taken_out(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl(15, deregister_after_s=60)]))
    bench.later(59)
    bench.do(commands.ReportCheck("service:goat-1", "passing", ""))
    bench.later(16)
    assert bench.checks("goat") == {"service:goat-1": "critical"}
    bench.later(59)
    assert bench.checks("goat") == {"service:goat-1": "critical"}
    bench.later(2)
    assert bench.checks("goat") == {}
    assert bench.machine.agent.specs == {}
    assert {kind for kind, _ in bench.disk} == {"node", "service", "check"}
    assert len(bench.disk) == 3


def test_the_reaper_counts_from_when_it_turned_critical_not_from_the_last_report(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl(15, deregister_after_s=60)]))
    for _ in range(6):
        bench.later(9)
        bench.do(commands.ReportCheck("service:goat-1", "critical", "still broken"))
    assert bench.checks("goat")
    bench.later(7)
    assert bench.checks("goat") == {}


def test_a_check_that_nobody_runs_takes_no_service_away(bench, goat):
    probe = CheckSpec(
        check_id="docker",
        service_id="goat-1",
        type="docker",
        probe={"docker_container_id": "x"},
        deregister_after_s=60,
    )
    bench.do(commands.RegisterService(goat(), [probe]))
    bench.later(10_000)
    assert bench.checks("goat") == {"docker": "critical"}
    with pytest.raises(Refused, match='CheckID "docker" does not have associated TTL'):
        bench.do(commands.ReportCheck("docker", "passing", ""))


def test_maintenance_of_the_node_touches_every_service_on_it(bench, goat):
    bench.do(commands.RegisterService(goat(), []))
    bench.do(commands.MaintainNode(enable=True, reason=""))
    assert topics.service("goat") in bench.touched
    assert check(bench, "_node_maintenance").status == "critical"
    index = bench.machine.ledger.index
    bench.do(commands.MaintainNode(enable=True, reason="another"))
    assert bench.machine.ledger.index == index
    bench.do(commands.MaintainNode(enable=False, reason=""))
    assert "_node_maintenance" not in bench.machine.catalog.checks["n1"]


def test_replacing_checks_keeps_maintenance(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl()]))
    bench.do(commands.MaintainService("goat-1", enable=True, reason="why"))
    bench.do(commands.RegisterService(goat(), [ttl(check_id="other")], replace_checks=True))
    assert set(bench.checks("goat")) == {"other", "_service_maintenance:goat-1"}
    assert set(bench.machine.agent.specs) == {"other"}


def test_a_service_under_another_name_leaves_the_old_one(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl()]))
    renamed = type(goat())(id="goat-1", service="sheep")
    bench.do(commands.RegisterService(renamed, []))
    assert {topics.service("goat"), topics.service("sheep")} <= bench.touched
    assert "goat" not in bench.machine.catalog.named
    assert check(bench).service_name == "sheep"


def test_a_refused_check_changes_nothing(bench):
    index = bench.machine.ledger.index
    with pytest.raises(Refused, match='ServiceID "nope" does not exist'):
        bench.do(commands.RegisterCheck(ttl(service_id="nope")))
    assert bench.machine.ledger.index == index


def test_a_long_output_is_cut(bench, goat):
    bench.do(commands.RegisterService(goat(), [ttl()]))
    bench.do(commands.ReportCheck("service:goat-1", "passing", "x" * 5000))
    assert check(bench).output == "x" * 4096 + " ... (captured 4096 of 5000 bytes)"


def test_a_check_whose_service_is_reaped_in_the_same_moment_is_left_in_peace(bench, goat):
    dead = ttl(15, check_id="dead", deregister_after_s=60)
    alive = ttl(100, check_id="alive", status="passing")
    bench.do(commands.RegisterService(goat(), [dead, alive]))
    bench.later(200)
    assert bench.checks("goat") == {}
    assert bench.machine.agent.specs == {}
