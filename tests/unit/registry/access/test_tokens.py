"""Tokens and policies as the state keeps them: through restarts and snapshots, whole or not at all."""

from __future__ import annotations

import pytest

from milkrun.registry import commands
from milkrun.registry.access.grants import Grants, NodeIdentity, Template
from milkrun.registry.access.rules import Level, Resource, Rules
from milkrun.registry.access.tokens import (
    ANONYMOUS_ID,
    MANAGEMENT,
    MANAGEMENT_ID,
    Policy,
    Role,
    Token,
    digest_of,
)
from milkrun.registry.nouns import Node
from milkrun.registry.refusal import Refused
from milkrun.registry.snapshot import pack, unpack
from milkrun.registry.state import Machine

OWN = Node(id="00000000-0000-0000-0000-00000000000a", node="n1", address="127.0.0.1")
SHOP = Policy(id="p1", name="shop", text='key_prefix "shop/" { policy = "write" }')
HELD = Token(accessor="t1", digest=digest_of(b"secret"), description="held", policies=["p1"])


class Bench:
    def __init__(self) -> None:
        self.machine = Machine("n1")
        self.disk: dict[tuple[str, str], bytes] = {}
        self.do(commands.Announce(OWN))

    def do(self, command: commands.Command) -> object:
        try:
            return self.machine.apply(command, 1000.0)
        finally:
            for row, body in self.machine.ledger.take()[0].items():
                if body is None:
                    self.disk.pop(row, None)
                else:
                    self.disk[row] = body

    def restart(self) -> None:
        rows = [(kind, body) for (kind, _), body in self.disk.items()]
        self.machine = Machine.restore("n1", self.machine.ledger.index, rows, 1000.0)

    def level(self, digest: str = HELD.digest) -> Level | None:
        tokens = self.machine.tokens
        holder = tokens.holder(digest)
        return holder and Rules(tokens.rules_of(holder)).level(Resource.KEY, "shop/a")

    def kept(self) -> tuple[dict[str, Token], dict[str, Policy]]:
        return dict(self.machine.tokens.tokens), dict(self.machine.tokens.policies)


@pytest.fixture
def bench() -> Bench:
    found = Bench()
    found.do(commands.PutPolicy(SHOP))
    found.do(commands.PutToken(HELD))
    return found


def test_a_restart_keeps_all_of_it(bench):
    kept = bench.kept()
    bench.restart()

    assert bench.kept() == kept
    assert bench.level() is Level.WRITE


def test_what_is_deleted_stays_deleted(bench):
    bench.do(commands.DropToken("t1"))
    bench.restart()
    assert bench.level() is None
    assert bench.machine.tokens.holder(HELD.digest) is None

    bench.do(commands.DropPolicy("p1"))
    bench.restart()
    assert bench.kept() == ({}, {})


def test_a_token_with_another_secret_is_not_found_by_the_old_one(bench):
    bench.do(commands.PutToken(Token(accessor="t1", digest=digest_of(b"new"), policies=["p1"])))

    for _ in range(2):
        assert bench.machine.tokens.holder(HELD.digest) is None
        assert bench.level(digest_of(b"new")) is Level.WRITE
        bench.restart()


def test_the_empty_secret_is_nobodys(bench):
    bench.do(commands.PutToken(Token(accessor=ANONYMOUS_ID, digest="", policies=["p1"])))

    assert bench.machine.tokens.holder("") is None
    bench.restart()
    assert bench.machine.tokens.anonymous.policies == ["p1"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (commands.PutToken(Token(accessor="t2", digest=HELD.digest)), "already in use"),
        (commands.PutToken(Token(accessor="t2", digest="d", policies=["none"])), "No such ACL policy"),
        (commands.PutPolicy(Policy(id="p2", name="shop")), "already exists"),
        (commands.PutPolicy(Policy(id="p2", name=MANAGEMENT)), "already exists"),
    ],
)
def test_what_would_be_ambiguous_is_refused_and_changes_nothing(bench, command, why):
    kept, disk = bench.kept(), dict(bench.disk)

    with pytest.raises(Refused, match=why):
        bench.do(command)
    assert bench.kept() == kept
    assert bench.disk == disk


def test_every_change_moves_the_version_and_the_index(bench):
    for command in (
        commands.PutPolicy(Policy(id="p1", name="shop", text="")),
        commands.PutToken(Token(accessor="t1", digest="d")),
        commands.DropToken("t1"),
        commands.DropPolicy("p1"),
    ):
        before = bench.machine.tokens.version, bench.machine.ledger.index
        bench.do(command)
        assert bench.machine.tokens.version > before[0]
        assert bench.machine.ledger.index == before[1] + 1


def snapshot(bench: Bench) -> commands.Restore:
    return commands.Restore(unpack(pack(bench.machine.whole())))


def restored(bench: Bench, whole: commands.Restore) -> None:
    bench.do(whole)
    for _ in range(2):
        assert {key: row.policies for key, row in bench.machine.tokens.tokens.items()} == {
            row.accessor: row.policies for row in whole.contents.tokens
        }
        assert {key: row.name for key, row in bench.machine.tokens.policies.items()} == {
            row.id: row.name for row in whole.contents.policies
        }
        for row in whole.contents.tokens:
            holder = bench.machine.tokens.holder(row.digest)
            assert holder
            assert holder.accessor == row.accessor
        bench.restart()


def test_a_snapshot_brings_tokens_and_policies_back(bench):
    whole = snapshot(bench)
    bench.do(commands.DropToken("t1"))
    bench.do(commands.DropPolicy("p1"))
    bench.do(commands.PutToken(Token(accessor="later", digest="d", policies=[MANAGEMENT_ID])))

    restored(bench, whole)
    assert bench.level() is Level.WRITE
    assert bench.machine.tokens.holder("d") is None, "what came later is gone: it may not be there by mistake"


def test_a_snapshot_into_an_empty_registry(bench):
    fresh = Bench()
    restored(fresh, snapshot(bench))

    assert fresh.level() is Level.WRITE


def test_a_snapshot_with_a_token_of_a_deleted_policy_is_restored(bench):
    bench.do(commands.DropPolicy("p1"))
    whole = snapshot(bench)
    bench.do(commands.DropToken("t1"))

    restored(bench, whole)
    assert bench.level() is Level.DENY


def test_names_and_secrets_that_were_swapped_are_swapped_back(bench):
    bench.do(commands.PutPolicy(Policy(id="p2", name="other")))
    bench.do(commands.PutToken(Token(accessor="t2", digest="d2", policies=["p2"])))
    whole = snapshot(bench)
    for command in (
        commands.PutPolicy(Policy(id="p2", name="between")),
        commands.PutPolicy(Policy(id="p1", name="other")),
        commands.PutPolicy(Policy(id="p2", name="shop")),
        commands.PutToken(Token(accessor="t2", digest="between")),
        commands.PutToken(Token(accessor="t1", digest="d2")),
        commands.PutToken(Token(accessor="t2", digest=HELD.digest)),
    ):
        bench.do(command)

    restored(bench, whole)
    assert bench.level() is Level.WRITE


def test_a_restore_of_the_same_changes_nothing(bench):
    whole = snapshot(bench)
    index = bench.machine.ledger.index
    bench.do(whole)

    assert bench.machine.ledger.index == index


ROLE = Role(id="r1", name="groom", policies=["p1"])


def test_a_role_grants_what_it_has_until_it_or_its_policy_is_gone(bench):
    bench.do(commands.PutRole(ROLE))
    bench.do(commands.PutToken(Token(accessor="t1", digest=HELD.digest, roles=["r1"])))
    for _ in range(2):
        assert bench.level() is Level.WRITE
        bench.restart()

    bench.do(commands.DropPolicy("p1"))
    assert bench.level() is Level.DENY
    bench.do(commands.PutRole(Role(id="r1", name="groom", policies=[MANAGEMENT_ID])))
    assert bench.level() is Level.WRITE
    bench.do(commands.DropRole("r1"))
    for _ in range(2):
        assert bench.level() is Level.DENY
        bench.restart()


def test_a_snapshot_brings_roles_back_and_takes_later_ones_away(bench):
    bench.do(commands.PutRole(ROLE))
    whole = snapshot(bench)
    bench.do(commands.PutRole(Role(id="r1", name="other")))
    bench.do(commands.PutRole(Role(id="r2", name="groom")))

    for _ in range(2):
        bench.do(whole)
        assert [(each.id, each.name) for each in bench.machine.tokens.roles.values()] == [("r1", "groom")]
        bench.restart()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (commands.PutRole(Role(id="r2", name="groom")), "already exists"),
        (commands.PutRole(Role(id="r2", name="new", policies=["none"])), "No such ACL policy"),
        (commands.PutToken(Token(accessor="t2", digest="d", roles=["none"])), "No such ACL role"),
    ],
)
def test_a_role_that_would_be_ambiguous_is_refused_and_changes_nothing(bench, command, why):
    bench.do(commands.PutRole(ROLE))
    disk = dict(bench.disk)

    with pytest.raises(Refused, match=why):
        bench.do(command)
    assert bench.disk == disk


def test_an_accessor_is_the_same_however_it_is_written(bench):
    bench.do(commands.PutToken(Token(accessor="DEAD-beef", digest="d")))
    bench.do(commands.PutToken(Token(accessor="dead-BEEF", digest="e", description="again")))
    bench.restart()

    assert bench.machine.tokens.holder("d") is None
    found = bench.machine.tokens.token("dead-beef")
    assert found
    assert found.description == "again"
    bench.do(commands.DropToken("DEAD-BEEF"))
    bench.restart()
    assert bench.machine.tokens.holder("e") is None


NODE_WRITE, SERVICE_WRITE = (Resource.NODE, "n9"), (Resource.SERVICE, "goat")


@pytest.mark.parametrize(
    ("grants", "on"),
    [
        (Grants(nodes=[NodeIdentity("n9", "dc1")]), NODE_WRITE),
        (Grants(services=["goat"], only_in={"goat": ["dc2", "dc1"]}), SERVICE_WRITE),
        (Grants(services=["goat"]), SERVICE_WRITE),
        (Grants(templates=[Template("builtin/service", "goat")]), SERVICE_WRITE),
        (Grants(templates=[Template("builtin/node", "n9", ["dc1"])]), NODE_WRITE),
    ],
)
def test_an_identity_may_write_itself_and_nobody_else(grants, on):
    rules = Rules(grants.own_rules())

    assert rules.level(*on) is Level.WRITE
    assert rules.level(on[0], f"{on[1]}x") is not Level.WRITE
    assert rules.level(Resource.SERVICE, "hen") is Level.READ
    assert rules.level(Resource.KEY, on[1]) is Level.DENY


@pytest.mark.parametrize(
    "grants",
    [
        Grants(nodes=[NodeIdentity("n9", "dc2")]),
        Grants(services=["goat"], only_in={"goat": ["dc2"]}),
        Grants(templates=[Template("builtin/service", "goat", ["dc2"])]),
    ],
)
def test_what_is_meant_for_another_datacenter_grants_nothing(grants):
    assert list(grants.own_rules()) == []


def test_the_template_for_dns_reads_names_and_writes_nothing():
    rules = Rules(Grants(templates=[Template("builtin/dns")]).own_rules())

    for resource in (Resource.NODE, Resource.SERVICE, Resource.QUERY):
        assert rules.level(resource, "any") is Level.READ
    assert rules.level(Resource.KEY, "any") is Level.DENY
