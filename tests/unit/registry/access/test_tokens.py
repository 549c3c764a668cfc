"""Tokens and policies as the state keeps them: through restarts and snapshots, whole or not at all."""

from __future__ import annotations

import pytest

from milkrun.registry import commands
from milkrun.registry.access.rules import Level, Resource, Rules
from milkrun.registry.access.tokens import (
    ANONYMOUS_ID,
    MANAGEMENT,
    MANAGEMENT_ID,
    Policy,
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
