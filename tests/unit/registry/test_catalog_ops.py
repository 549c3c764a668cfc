"""What a transaction over the catalog drafts is what the catalog then has, to the last index."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry import commands
from milkrun.registry.commands import CheckOp, NodeOp, ServiceOp
from milkrun.registry.nouns import Check, Node, Service
from milkrun.registry.state import Machine

NODES = st.sampled_from(["far", "near"])
IDS = st.sampled_from(["a", "b"])
INDEXES = st.integers(0, 4)
OPS = st.lists(
    st.one_of(
        st.builds(
            NodeOp,
            st.sampled_from(["set", "set", "cas", "get", "delete", "delete-cas", "bogus"]),
            st.builds(Node, node=NODES, address=st.sampled_from(["1", "2"])),
            INDEXES,
        ),
        st.builds(
            ServiceOp,
            st.sampled_from(["set", "set", "cas", "get", "delete", "delete-cas"]),
            NODES,
            st.builds(Service, id=IDS, service=st.sampled_from(["web", "db"]), port=st.integers(0, 1)),
            INDEXES,
        ),
        st.builds(
            CheckOp,
            st.sampled_from(["set", "set", "cas", "get", "delete", "delete-cas"]),
            st.builds(
                Check,
                node=NODES,
                check_id=IDS,
                name=st.just("c"),
                status=st.sampled_from(["passing", "critical"]),
                service_id=st.sampled_from(["", "a"]),
            ),
            INDEXES,
        ),
    ),
    max_size=6,
)


def machine_with(nodes):
    machine = Machine("n1")
    machine.apply(commands.Announce(Node(id="x", node="n1", address="127.0.0.1")), 0.0)
    for node in sorted(nodes):
        machine.apply(
            commands.CatalogRegister(
                node,
                Node(node=node, address="1"),
                Service(id="a", service="web"),
                [Check(node=node, check_id="a", name="c", status="passing", service_id="a")],
            ),
            0.0,
        )
    machine.ledger.take()
    return machine


def seen(machine):
    catalog = machine.catalog
    return msgspec.to_builtins((catalog.nodes, catalog.services, catalog.checks))


@given(st.sets(NODES), OPS)
def test_all_or_nothing(nodes, operations):
    machine = machine_with(nodes)
    before, index = seen(machine), machine.ledger.index
    result = machine.apply(commands.Txn(operations), 0.0)
    rows, touched, _ = machine.ledger.take()
    if result.Errors:
        assert result.Results is None
        assert (seen(machine), machine.ledger.index, rows, touched) == (before, index, {}, set())
    else:
        assert machine.ledger.index in (index, index + 1)


@given(st.sets(NODES), OPS)
def test_the_last_result_of_each_thing_is_what_the_catalog_has(nodes, operations):
    machine = machine_with(nodes)
    reads = [
        each
        for node in ("far", "near")
        for each in (
            NodeOp("get", Node(node=node, address="")),
            *(ServiceOp("get", node, Service(id=each, service="x")) for each in "ab"),
            *(CheckOp("get", Check(node=node, check_id=each, name="c")) for each in "ab"),
        )
    ]
    if machine.apply(commands.Txn(operations), 0.0).Errors:
        return
    for read in reads:
        # Read at the end of the same transaction, and after it.
        drafted = machine_with(nodes).apply(commands.Txn([*operations, read]), 0.0)
        after = machine.apply(commands.Txn([read]), 0.0)
        assert bool(drafted.Errors) == bool(after.Errors)
        if drafted.Results:
            assert drafted.Results[-1] == after.Results[0]


def test_its_own_node_stays():
    machine = machine_with([])
    result = machine.apply(commands.Txn([NodeOp("delete", Node(node="n1", address=""))]), 0.0)
    assert result.Errors is None
    assert "n1" in machine.catalog.nodes


def test_a_check_that_turns_critical_ends_the_sessions_that_depend_on_it(bench):
    far = Node(node="n1", address="127.0.0.1")
    bench.do(
        commands.CatalogRegister(
            "n1", far, None, [Check(node="n1", check_id="c", name="c", status="passing")]
        )
    )
    session = bench.session(1, node_checks=["serfHealth", "c"])
    bench.do(commands.Txn([CheckOp("set", Check(node="n1", check_id="c", name="c", status="critical"))]))
    assert session not in bench.machine.sessions.live


def test_with_a_node_its_checks_are_gone_for_the_operations_that_follow():
    machine = machine_with(["far"])
    operations = [
        NodeOp("delete", Node(node="far", address="")),
        CheckOp("get", Check(node="far", check_id="a", name="c")),
        ServiceOp("get", "far", Service(id="a", service="web")),
    ]
    result = machine.apply(commands.Txn(operations), 0.0)
    assert [each.OpIndex for each in result.Errors] == [1, 2]
