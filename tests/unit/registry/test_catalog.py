from __future__ import annotations

from milkrun.registry import commands, topics, views
from milkrun.registry.nouns import Check, Node, Service


def external(address="10.0.0.1", **check):
    return commands.CatalogRegister(
        "ext",
        Node(node="ext", address=address),
        Service(id="db", service="db"),
        [Check(node="ext", check_id="c", name="c", **check)],
    )


def test_a_node_that_moves_wakes_who_watches_its_services(bench):
    bench.do(external())
    bench.do(external(address="10.0.0.2"))
    assert bench.touched == {topics.NODES, topics.node("ext"), topics.service("db")}


def test_a_check_wakes_its_own_service_and_nobody_elses(bench):
    bench.do(external(service_id="db"))
    bench.do(commands.RegisterService(Service(id="x", service="x"), []))
    bench.do(external(service_id="db", status="passing"))
    assert bench.touched == {topics.CHECKS, topics.node("ext"), topics.service("db")}


def test_a_service_and_its_checks_share_the_index_of_their_command(bench):
    bench.do(external(service_id="db"))
    (entry,) = views.health(bench.machine.catalog, "db", (), passing=False)
    index = bench.machine.ledger.index
    assert {entry.node.modify_index, entry.service.modify_index, entry.checks[0].modify_index} == {index}


def test_the_worst_check_says_how_an_instance_is():
    def aggregated(*checks):
        return views.aggregated(
            Check(node="n", check_id=check_id, name="", status=status) for check_id, status in checks
        )

    assert aggregated() == "passing"
    assert aggregated(("a", "passing"), ("b", "warning")) == "warning"
    assert aggregated(("a", "warning"), ("b", "critical")) == "critical"
    assert aggregated(("a", "critical"), ("_service_maintenance:x", "critical")) == "maintenance"
    assert aggregated(("_node_maintenance", "critical")) == "maintenance"
