"""The whole machine under random commands: what a watcher is promised, and what the disk must hold."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from milkrun.registry import commands, topics, views
from milkrun.registry.nouns import Check, CheckSpec, Node, Service, Session
from milkrun.registry.refusal import Refused
from milkrun.registry.state import Machine

OWN = Node(id="1" * 36, node="n1", address="127.0.0.1")
NAMES = ("goat", "farmer")
IDS = st.sampled_from(["a", "b"])
STATUSES = st.sampled_from(["passing", "warning", "critical"])
SESSIONS = tuple(f"{n}" * 36 for n in range(3))
KEYS = ("x", "x/y", "z")
PREFIXES = ("", "x", "x/", "q")


def queries(machine: Machine) -> dict[str, tuple[int, Any]]:
    """Every kind of query: its topic, with its index and its answer."""
    catalog, ledger = machine.catalog, machine.ledger
    found: dict[str, Any] = {
        topics.NODES: sorted(catalog.nodes.items()),
        topics.SERVICES: views.catalog_services(catalog),
        topics.CHECKS: views.state_checks(catalog, "any"),
        topics.SESSIONS: machine.sessions.of_node(),
    }
    for name in NAMES:
        found[topics.service(name)] = (
            views.health(catalog, name, (), passing=False),
            views.health(catalog, name, (), passing=True),
            views.service_checks(catalog, name),
            views.catalog_service(catalog, name, ()),
        )
    for node in ("n1", "ext"):
        found[topics.node(node)] = (views.catalog_node(catalog, node), views.node_checks(catalog, node))
    for session in SESSIONS:
        found[topics.session(session)] = machine.sessions.live.get(session)
    answers = {topic: (ledger.at(topic), answer) for topic, answer in found.items()}
    for key in KEYS:
        answers[topics.key(key)] = (machine.kv.index_of(key), machine.kv.get(key))
    for prefix in PREFIXES:
        answers[topics.under(prefix)] = (machine.kv.index_under(prefix), machine.kv.under(prefix))
    return answers


class Registry(RuleBasedStateMachine):
    """Any commands, in any order, with restarts and time passing."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.machine = Machine("n1")
        self.disk: dict[tuple[str, str], bytes] = {}
        self.last = queries(self.machine)
        self.do(commands.Announce(OWN))

    def do(self, command: commands.Command) -> None:
        machine, before = self.machine, self.last
        index = machine.ledger.index
        try:
            machine.apply(command, self.now)
            refused = False
        except Refused:
            refused = True
        rows, touched, keys = machine.ledger.take()
        for row, body in rows.items():
            if body is None:
                self.disk.pop(row, None)
            else:
                self.disk[row] = body
        after = self.last = queries(machine)

        assert machine.ledger.index in (index, index + 1)
        assert (machine.ledger.index > index) == bool(rows)
        assert not (refused and (rows or touched or keys)), "a refusal changes nothing"
        for topic, (was_at, was) in before.items():
            at, answer = after[topic]
            assert at >= was_at, f"{topic} went back"
            woken = topic in touched or any(
                topic == topics.key(key) or (topic.startswith("under:") and key.startswith(topic[6:]))
                for key in keys
            )
            if answer != was:
                assert at == machine.ledger.index > was_at, f"{topic} changed under its old index"
                assert woken, f"{topic} changed and woke nobody"
            if not woken:
                assert at == was_at, f"{topic} moved and woke nobody"

    @rule(
        name=st.sampled_from(NAMES),
        service_id=IDS,
        port=st.integers(0, 1),
        checks=st.lists(IDS, unique=True),
        status=STATUSES,
        replace=st.booleans(),
    )
    def register(self, *, name, service_id, port, checks, status, replace):
        specs = [
            CheckSpec(
                check_id=f"c-{each}", service_id=service_id, ttl_s=15, status=status, deregister_after_s=60
            )
            for each in checks
        ]
        service = Service(id=service_id, service=name, port=port, tags=["t"] * port)
        self.do(commands.RegisterService(service, specs, replace))

    @rule(service_id=IDS)
    def deregister(self, service_id):
        self.do(commands.DeregisterService(service_id))

    @rule(check=IDS, status=STATUSES)
    def report(self, check, status):
        self.do(commands.ReportCheck(f"c-{check}", status, "said"))

    @rule(check=IDS)
    def drop_check(self, check):
        self.do(commands.DeregisterCheck(f"c-{check}"))

    @rule(service_id=IDS, enable=st.booleans())
    def maintain(self, service_id, enable):
        self.do(commands.MaintainService(service_id, enable, "why"))

    @rule(enable=st.booleans())
    def maintain_node(self, enable):
        self.do(commands.MaintainNode(enable, ""))

    @rule(
        name=st.sampled_from(NAMES),
        address=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        status=STATUSES,
        own=st.booleans(),
    )
    def external(self, name, address, status, own):
        node = Node(node="ext", address=address)
        check = Check(node="ext", check_id="e", name="e", status=status, service_id="s" if own else "")
        self.do(commands.CatalogRegister("ext", node, Service(id="s", service=name), [check]))

    @rule(service=st.sampled_from(["", "s"]), check=st.sampled_from(["", "e"]))
    def external_gone(self, service, check):
        self.do(commands.CatalogDeregister("ext", service, check))

    @rule(
        number=st.integers(0, 2),
        behavior=st.sampled_from(["release", "delete"]),
        check=st.sampled_from(["serfHealth", "c-a"]),
        delay=st.sampled_from([0, 5 * 10**9]),
    )
    def session(self, number, behavior, check, delay):
        if SESSIONS[number] not in self.machine.sessions.live:
            session = Session(
                id=SESSIONS[number],
                node="n1",
                behavior=behavior,
                node_checks=[check],
                ttl="10s",
                lock_delay=delay,
            )
            self.do(commands.CreateSession(session))

    @rule(number=st.integers(0, 2), end=st.booleans())
    def session_again(self, number, end):
        command = commands.DestroySession if end else commands.RenewSession
        self.do(command(SESSIONS[number]))

    @rule(
        key=st.sampled_from(KEYS),
        value=st.sampled_from([b"", b"1"]),
        number=st.integers(0, 2),
        verb=st.integers(0, 4),
    )
    def write(self, key, value, number, verb):
        entry = self.machine.kv.get(key)
        self.do(
            [
                commands.KvPut(key, value),
                commands.KvCas(key, value, 0, entry.modify_index if entry else 0),
                commands.KvLock(key, value, 0, SESSIONS[number]),
                commands.KvUnlock(key, value, 0, SESSIONS[number]),
                commands.KvDelete(key),
            ][verb]
        )

    @rule(prefix=st.sampled_from(PREFIXES))
    def delete_tree(self, prefix):
        self.do(commands.KvDeleteTree(prefix))

    @rule(seconds=st.sampled_from([1, 6, 16, 70]))
    def time_passes(self, seconds):
        self.now += seconds
        self.do(commands.Expire())

    @precondition(lambda self: self.machine.ledger.index > 1)
    @rule()
    def restart(self):
        rows = [(kind, body) for (kind, _), body in self.disk.items()]
        restored = Machine.restore("n1", self.machine.ledger.index, rows, self.now)
        after = queries(restored)
        for topic, (at, answer) in self.last.items():
            assert after[topic][1] == answer, f"{topic} is another after a restart"
            assert after[topic][0] >= at, f"{topic} went back in a restart"
        assert restored.sessions.delayed == self.machine.sessions.delayed
        assert restored.agent.specs == self.machine.agent.specs
        self.machine, self.last = restored, after

    @invariant()
    def holders_live(self):
        for key in KEYS:
            entry = self.machine.kv.get(key)
            if entry and entry.session is not msgspec.UNSET:
                assert entry.session in self.machine.sessions.live, "a dead session holds a key"
        held = {key for keys in self.machine.kv.held.values() for key in keys}
        assert held == {each.key for each in self.machine.kv.under("") if each.session}

    @invariant()
    def specs_have_checks(self):
        assert set(self.machine.agent.specs) <= set(self.machine.catalog.checks.get("n1", {}))


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
