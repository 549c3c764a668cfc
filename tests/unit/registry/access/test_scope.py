"""Whatever a token asks for, in whatever order: nothing changes but what its rules let it write.

The judge knows nothing of how commands are permitted. It looks at the rows on the disk before and after.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from unit.registry.access.naive import naive
from unit.registry.access.world import MAKERS, NODES, THE_REGISTRYS_OWN, Rows, World, any_rules

from milkrun.registry import agent, autopilot, catalog, commands, kv, sessions
from milkrun.registry.access.authority import Authority
from milkrun.registry.access.permits import guard
from milkrun.registry.access.rules import EVERYTHING, Level, Resource, Rule
from milkrun.registry.nouns import CRITICAL, Check, Session
from milkrun.registry.refusal import Refused

ROUNDS = 1000 if os.environ.get("MILKRUN_SOAK") else 200
CHANGES = 100


class Judge:
    """Says which changed rows are none of the business of whoever has these rules."""

    def __init__(self, rules: list[Rule], before: Rows, after: Rows, whole: Rows) -> None:
        self._rules = rules
        self._before = before
        self._after = after
        self._then = {**whole, **before}
        self._now = {**whole, **after}
        self._ended = {
            key: row
            for (kind, key), row in before.items()
            if kind == sessions.KIND and row and after[kind, key] is None
        }

    def strange(self) -> list[str]:
        return [
            f"{row}: {self._before[row]} became {self._after[row]}"
            for row in self._after
            if self._before[row] != self._after[row] and not self._is_fine(*row)
        ]

    def _writes(self, resource: Resource, name: str) -> bool:
        return naive(self._rules, resource, name) is Level.WRITE

    def _is_fine(self, kind: str, key: str) -> bool:
        old, new = self._before[kind, key], self._after[kind, key]
        match kind:
            case kv.KIND:
                held = old and old.session in self._ended
                return self._writes(Resource.KEY, key) or bool(held)
            case sessions.DELAY_KIND:
                was = self._then.get((kv.KIND, key))
                return bool(was and was.session in self._ended)
            case sessions.KIND:
                return self._writes(Resource.SESSION, (old or new).node) or self._had_to_end(old)
            case catalog.NODE:
                return self._writes(Resource.NODE, key)
            case catalog.SERVICE:
                if new is None and self._writes(Resource.NODE, old.node):
                    return True
                return all(
                    self._writes(Resource.SERVICE, each.service.service) for each in (old, new) if each
                )
            case catalog.CHECK:
                return self._is_fine_check(key, (old or new).node, dropped=new is None)
            case agent.KIND:  # whose it is says the catalog's check; a transaction may have moved that one
                mine = new is None or self._may_write_checks_of(self._now, "n1", new.service_id)
                return mine and self._is_fine_check(f"2:n1:{key}", "n1", dropped=new is None)
            case autopilot.KIND:
                return self._writes(Resource.OPERATOR, "")
            case _:
                return self._writes(Resource.ACL, "")

    def _is_fine_check(self, key: str, node: str, *, dropped: bool) -> bool:
        if dropped and self._writes(Resource.NODE, node):
            return True
        return all(
            self._may_write_checks_of(rows, node, check.service_id)
            for rows in (self._then, self._now)
            if (check := rows.get((catalog.CHECK, key)))
        )

    def _may_write_checks_of(self, rows: Rows, node: str, service_id: str) -> bool:
        if not service_id:
            return self._writes(Resource.NODE, node)
        found = rows.get((catalog.SERVICE, f"{len(node)}:{node}:{service_id}"))
        return found is not None and self._writes(Resource.SERVICE, found.service.service)

    def _had_to_end(self, session: Session | None) -> bool:
        """Its node is gone, or a check that it depends on is critical or gone; that is judged by itself."""
        if session is None or session.id not in self._ended:
            return False
        if self._now.get((catalog.NODE, session.node)) is None:
            return True
        checks = [
            self._now.get((catalog.CHECK, f"{len(session.node)}:{session.node}:{check_id}"))
            for check_id in session.check_ids
        ]
        return any(not isinstance(check, Check) or check.status == CRITICAL for check in checks)


def test_a_token_changes_nothing_outside_its_rules():
    done = Counter[str]()
    for seed in range(ROUNDS):
        chance = random.Random(seed)
        rules = any_rules(chance)
        who = Authority(rules)
        world = World(chance)
        for _ in range(CHANGES):
            command = world.any_command()
            whole = dict(world.rows)
            before, after, allowed = world.do(who, command)
            done[f"{type(command).__name__} {'allowed' if allowed else 'refused'}"] += 1
            assert allowed or not after, f"seed {seed}: {command} was refused and changed {after}"
            strange = Judge(rules, before, after, whole).strange()
            assert not strange, f"seed {seed}: {rules} allow {command}\n" + "\n".join(strange)
    # A guard that refuses all, or a world in which nothing can be done, proves nothing.
    for command_type in MAKERS:
        name = command_type.__name__
        assert done[f"{name} refused"] > 5, f"{name} was never refused: {done}"
        if name != "Restore" and not issubclass(command_type, commands.AccessCommand):
            assert done[f"{name} allowed"] > 5, f"{name} was never allowed: {done}"


def leaves(of: type[commands.Command]) -> set[type[commands.Command]]:
    below = [
        each for each in of.__subclasses__() if each.__module__ == commands.__name__
    ]  # tests make some too
    return {leaf for each in below for leaf in leaves(each)} if below else {of}


def test_each_kind_of_change_is_tried_here():
    tried = set(MAKERS) | {type(each) for each in THE_REGISTRYS_OWN}

    assert {each.__name__ for each in leaves(commands.Command) - tried} == set(), (
        "who may do these? say so in permits.py, and make random ones in world.py"
    )


NEARLY_ALL = Authority([*EVERYTHING, Rule(Resource.EVENT, "the-one", Level.DENY)])


@pytest.mark.parametrize("command", THE_REGISTRYS_OWN, ids=lambda command: type(command).__name__)
def test_what_only_the_registry_does_no_token_does(command):
    world = World(random.Random(1))

    with pytest.raises(Refused) as refused:
        guard(NEARLY_ALL, command, world.machine)
    assert refused.value.status == 403


@pytest.mark.parametrize("command_type", MAKERS, ids=lambda each: each.__name__)
def test_who_may_write_all_that_there_is_does_all_that_clients_do(command_type):
    world = World(random.Random(2))

    for _ in range(30):
        assert guard(NEARLY_ALL, MAKERS[command_type](world), world.machine) is None


@pytest.mark.parametrize("command_type", MAKERS, ids=lambda each: each.__name__)
def test_who_may_write_nothing_changes_nothing(command_type):
    world = World(random.Random(3))
    reader = Authority(Rule(each, "", Level.READ, prefix=True) for each in Resource)

    for _ in range(30):
        _, after, _ = world.do(reader, MAKERS[command_type](world))
        assert not after
        assert not world.machine.events.named(None)
    assert NODES[1] in world.machine.catalog.nodes
