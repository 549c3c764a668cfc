from __future__ import annotations

import pytest

from milkrun.registry import commands
from milkrun.registry.checks.alias import stands
from milkrun.registry.checks.definition import Alias
from milkrun.registry.nouns import CheckSpec


@pytest.fixture
def stand(bench):
    def ask(service="goat-1", node=""):
        found = stands(bench.machine.catalog, "n1", "me", Alias(node, service))
        return found.status, found.output

    return ask


def ttl(check_id, status):
    return CheckSpec(check_id=check_id, name=f"the {check_id}", service_id="goat-1", ttl_s=60, status=status)


def test_the_worst_check_decides(bench, goat, stand):
    assert stand() == ("critical", "Service goat-1 could not be found on node ")
    bench.do(commands.RegisterService(goat(), []))
    assert stand() == ("passing", "No checks found.")
    bench.do(commands.RegisterService(goat(), [ttl("a", "passing")]))
    assert stand() == ("passing", "All checks passing.")
    bench.do(commands.RegisterService(goat(), [ttl("b", "warning"), ttl("c", "critical")]))
    bench.do(commands.ReportCheck("c", "critical", "why"))
    assert stand() == ("critical", 'Aliased check "the c" failing: why')
    bench.do(commands.ReportCheck("c", "passing", ""))
    assert stand() == ("warning", 'Aliased check "the b" failing: ')


def test_a_named_node_counts_with_its_own_checks(bench, goat, stand):
    bench.do(commands.RegisterService(goat(), []))
    assert stand(node="n1") == ("passing", "All checks passing.")
    bench.do(commands.MaintainNode(enable=True, reason="x"))
    assert stand(node="n1") == ("critical", 'Aliased check "Node Maintenance Mode" failing: ')
    assert stand() == ("passing", "No checks found.")
    assert stand(service="", node="n1")[0] == "critical"


def test_an_unknown_node_is_critical_and_harms_nobody(stand):
    """Consul 1.8.7 ends with a nil pointer there."""
    assert stand(node="nowhere") == ("critical", "Node nowhere could not be found")
    assert stand(service="", node="nowhere") == ("critical", "Node nowhere could not be found")


def test_maintenance_of_the_service_counts(bench, goat, stand):
    bench.do(commands.RegisterService(goat(), []))
    bench.do(commands.MaintainService("goat-1", enable=True, reason="x"))
    assert stand() == ("critical", 'Aliased check "Service Maintenance Mode" failing: ')


def test_an_alias_does_not_count_itself_nor_quote_another_alias(bench, goat, stand):
    def me(check_id):
        return CheckSpec(
            check_id=check_id,
            name=check_id,
            service_id="goat-1",
            type="alias",
            probe={"aliasservice": "goat-1"},
        )

    bench.do(commands.RegisterService(goat(), [me("me")]))
    assert stand() == ("passing", "No checks found.")
    bench.do(commands.RegisterService(goat(), [me("other")]))
    bench.do(commands.ReportProbe(me("other"), "critical", "a very long story"))
    assert stand() == ("critical", 'Aliased check "other" failing: ')
