"""Ways in which one change speaks of two things: both must be the token's to write."""

from __future__ import annotations

import contextlib
import random

import pytest
from unit.registry.access.world import World

from milkrun.registry import commands
from milkrun.registry.access.authority import Authority
from milkrun.registry.access.permits import guard
from milkrun.registry.access.rules import Level, Resource, Rule
from milkrun.registry.commands import CheckOp, ServiceOp, TxnOp
from milkrun.registry.nouns import NODE_CHECK, Check, CheckSpec, Node, Service
from milkrun.registry.refusal import Refused

GOATHERD = Authority([Rule(Resource.SERVICE, "goat", Level.WRITE)])


@pytest.fixture
def world() -> World:
    return World(random.Random(0))


def check(check_id: str, service_id: str) -> Check:
    return Check(node="n1", check_id=check_id, name="c", status="critical", service_id=service_id)


@pytest.mark.parametrize("check_id", ["c2", NODE_CHECK], ids=["of another service", "of the node"])
def test_a_service_does_not_come_with_a_check_that_is_anothers(world, check_id):
    specs = [CheckSpec(check_id=check_id, service_id="goat-1", ttl_s=10.0)]

    with pytest.raises(Refused, match="Permission denied"):
        guard(GOATHERD, commands.RegisterService(Service(id="goat-1", service="goat"), specs), world.machine)


def test_a_service_does_not_come_under_an_id_that_is_anothers(world):
    with pytest.raises(Refused, match="Permission denied"):
        guard(GOATHERD, commands.RegisterService(Service(id="hen-1", service="goat"), []), world.machine)


@pytest.mark.parametrize("verb", ["get", "delete", "delete-cas"])
def test_to_look_at_a_service_under_a_wrong_name_opens_nothing_to_a_check(world, verb):
    looked = ServiceOp(verb, "n1", Service(id="hen-1", service="goat"))
    result = guard(GOATHERD, commands.Txn([looked, CheckOp("set", check("new", "hen-1"))]), world.machine)

    assert result
    assert [error.OpIndex for error in result.Errors or ()][-1] == 1


def test_a_check_may_come_in_one_transaction_with_its_service(world):
    coming = [
        CheckOp("set", check("new", "goat-9")),
        ServiceOp("set", "n1", Service(id="goat-9", service="goat")),
    ]

    assert guard(GOATHERD, commands.Txn(coming), world.machine) is None
    assert guard(GOATHERD, commands.Txn(list(reversed(coming))), world.machine) is None


@pytest.mark.parametrize(
    "command",
    [commands.KvDeleteTree("a/"), commands.Txn([TxnOp(verb="delete-tree", key="a/")])],
    ids=["alone", "in a transaction"],
)
@pytest.mark.parametrize(
    "spared", [Rule(Resource.KEY, "a/1", Level.READ), Rule(Resource.KEY, "a/1", Level.DENY, prefix=True)]
)
def test_to_delete_all_below_a_name_takes_the_right_on_all_of_it(world, command, spared):
    below = Rule(Resource.KEY, "a/", Level.WRITE, prefix=True)

    assert guard(Authority([below]), command, world.machine) is None
    with contextlib.suppress(Refused):
        assert guard(Authority([below, spared]), command, world.machine) is not None
    with contextlib.suppress(Refused):
        assert guard(Authority([Rule(Resource.KEY, "a/", Level.WRITE)]), command, world.machine) is not None


def test_a_node_that_stays_as_it_is_takes_no_right_on_it(world):
    known = world.machine.catalog.nodes["n2"]
    service = Service(id="goat-9", service="goat")

    assert guard(GOATHERD, commands.CatalogRegister("n2", known, service, []), world.machine) is None
    moved = Node(node="n2", address="10.6.6.6")
    with pytest.raises(Refused):
        guard(GOATHERD, commands.CatalogRegister("n2", moved, service, []), world.machine)
