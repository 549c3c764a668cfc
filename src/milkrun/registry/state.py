"""The registry's state: every change goes through `apply`, and every row on the disk comes from it. Pure.

The machine is told the time, in seconds of a clock that only goes forward. After a restart each TTL, session
and lock-delay gets its whole time again, so that a registry that was away does not end everything at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, assert_never

import msgspec

from milkrun.registry import (
    agent,
    autopilot,
    catalog,
    commands,
    kv,
    restoring,
    sessions,
    snapshot,
    topics,
    txn,
)
from milkrun.registry.access.tokens import POLICY, ROLE, TOKEN, Policy, Role, Token, Tokens
from milkrun.registry.deadlines import Deadlines, Timer
from milkrun.registry.drafts import CatalogDraft
from milkrun.registry.events import Events
from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import (
    CRITICAL,
    NODE_CHECK,
    OWN_SERVICE,
    PASSING,
    Check,
    CheckSpec,
    Entry,
    Node,
    Service,
    Session,
)
from milkrun.registry.refusal import Refused

_ROWS: dict[str, type] = {
    catalog.NODE: Node,
    catalog.SERVICE: catalog.ServiceRow,
    catalog.CHECK: Check,
    agent.KIND: CheckSpec,
    sessions.KIND: Session,
    sessions.DELAY_KIND: sessions.LockDelay,
    kv.KIND: Entry,
    TOKEN: Token,
    POLICY: Policy,
    ROLE: Role,
    autopilot.KIND: autopilot.Configuration,
}
_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(shape) for kind, shape in _ROWS.items()
}
_UUID_LENGTH = 36


class Machine:
    """Nodes, services, checks, sessions, keys and tokens, all under one index."""

    def __init__(self, node: str, index: int = 1) -> None:
        self.ledger = Ledger(index)
        self.deadlines = Deadlines()
        self.kv = kv.KeyValues(self.ledger)
        self.catalog = catalog.Catalog(self.ledger)
        self.sessions = sessions.Sessions(self.ledger, self.kv, self.deadlines)
        self.events = Events()
        self.agent = agent.Agent(self.ledger, self.catalog, self.deadlines)
        self.agent.node = node
        self.tokens = Tokens(self.ledger)
        self.autopilot = autopilot.Autopilot(self.ledger)

    @property
    def node(self) -> str:
        """The name of this registry's own node."""
        return self.agent.node

    @classmethod
    def restore(cls, node: str, index: int, rows: Iterable[tuple[str, bytes]], now: float) -> Machine:
        """The machine that wrote these rows (each a kind and a body), with all times starting anew."""
        machine = cls(node, index)
        entries: list[Entry] = []
        specs: list[CheckSpec] = []
        for kind, body in rows:
            row: Any = _DECODERS[kind].decode(body)
            match row:
                case Entry():
                    entries.append(row)
                case CheckSpec():
                    specs.append(row)
                case _:
                    machine._load(row, now)
        machine.kv.load(entries)
        for spec in specs:
            machine.agent.load(spec, now)
        return machine

    def _load(self, row: Any, now: float) -> None:
        match row:
            case Node():
                self.catalog.load_node(row)
            case catalog.ServiceRow():
                self.catalog.load_service(row.node, row.service)
            case Check():
                self.catalog.load_check(row)
            case Session():
                self.sessions.load(row, now)
            case sessions.LockDelay():
                self.sessions.load_delay(row, now)
            case Token() | Policy() | Role():
                self.tokens.load([row])
            case autopilot.Configuration():
                self.autopilot.configuration = row

    def apply(self, command: commands.Command, now: float) -> Any:
        """The command's result. Raises Refused, and then nothing changed."""
        self.ledger.begin()
        result = self._apply(command, now)
        self._settle(now)
        return result

    def _apply(self, command: commands.Command, now: float) -> Any:  # noqa: C901, PLR0912  one arm a concept
        match command:
            case commands.KvCommand():
                return self._apply_to_keys(command)
            case commands.Txn():
                draft = CatalogDraft(self.catalog, self.ledger, own=self.node)
                return txn.run(self.kv, draft, command.operations, self._may_lock)
            case commands.AgentCommand():
                self._apply_to_agent(command, now)
            case commands.CatalogRegister():
                self._register(command)
            case commands.CatalogDeregister():
                self._deregister(command)
            case commands.HearEvent():
                self.events.hear(command.event)
                self.ledger.touched.add(topics.EVENTS)
            case commands.Restore():
                self._restore(command.contents, now)
            case commands.SessionCommand():
                return self._apply_to_sessions(command, now)
            case commands.AccessCommand():
                return self._apply_to_tokens(command)
            case commands.ConfigureAutopilot():
                if command.cas not in (None, self.autopilot.configuration.modify_index):
                    return False
                self.autopilot.put(command.configuration)
            case commands.Announce():
                self._announce(command.node)
            case commands.Expire():
                self._expire(now)
            case _:
                raise TypeError(f"no such command: {command!r}")
        return True

    def _apply_to_keys(self, command: commands.KvCommand) -> bool:
        match command:
            case commands.KvPut():
                kv.put(self.kv, command.key, command.value, command.flags)
            case commands.KvCas():
                return kv.cas(self.kv, command.key, command.value, command.flags, command.index) is not None
            case commands.KvLock():
                if not self._may_lock(command.session, command.key):
                    return False
                return (
                    kv.lock(self.kv, command.key, command.value, command.flags, command.session) is not None
                )
            case commands.KvUnlock():
                return (
                    kv.unlock(self.kv, command.key, command.value, command.flags, command.session) is not None
                )
            case commands.KvDelete():
                kv.delete(self.kv, command.key)
            case commands.KvDeleteCas():
                return kv.delete_cas(self.kv, command.key, command.index)
            case commands.KvDeleteTree():
                kv.delete_tree(self.kv, command.prefix)
            case _:
                raise TypeError(f"no such command: {command!r}")
        return True

    def _apply_to_agent(self, command: commands.AgentCommand, now: float) -> None:
        match command:
            case commands.RegisterService():
                self.agent.register(command.service, command.checks, now, replace=command.replace_checks)
            case commands.DeregisterService():
                self.catalog.drop_service(self.node, command.service_id)
            case commands.RegisterCheck():
                self.agent.register_check(command.check, now)
            case commands.DeregisterCheck():
                self.catalog.drop_check(self.node, command.check_id)
            case commands.ReportCheck():
                self.agent.report(command.check_id, command.status, command.output, now)
            case commands.ReportProbe():
                self.agent.report_probe(command.check, command.status, command.output, now)
            case commands.MaintainService():
                self.agent.maintain_service(command.service_id, enable=command.enable, reason=command.reason)
            case commands.MaintainNode():
                self.agent.maintain_node(enable=command.enable, reason=command.reason)
            case _:
                raise TypeError(f"no such command: {command!r}")

    def _apply_to_sessions(self, command: commands.SessionCommand, now: float) -> Any:
        match command:
            case commands.CreateSession():
                return self._create_session(command.session, now)
            case commands.RenewSession():
                return self.sessions.renew(command.session_id, now)
            case commands.DestroySession():
                self.sessions.end(command.session_id, now)
                return True
            case _:
                raise TypeError(f"no such command: {command!r}")

    def _apply_to_tokens(self, command: commands.AccessCommand) -> Any:
        match command:
            case commands.PutToken():
                return self.tokens.put_token(command.token)
            case commands.DropToken():
                self.tokens.drop_token(command.accessor)
            case commands.PutPolicy():
                return self.tokens.put_policy(command.policy)
            case commands.DropPolicy():
                self.tokens.drop_policy(command.policy_id)
            case commands.PutRole():
                return self.tokens.put_role(command.role)
            case commands.DropRole():
                self.tokens.drop_role(command.role_id)
            case _:
                raise TypeError(f"no such command: {command!r}")
        return True

    def whole(self) -> snapshot.Contents:
        """All that there is now."""
        return snapshot.take(
            self.ledger.index,
            self.catalog,
            self.agent,
            self.sessions,
            self.kv,
            access=self.tokens,
            pilot=self.autopilot.configuration,
        )

    def _restore(self, whole: snapshot.Contents, now: float) -> None:
        self.ledger.ahead_of(whole.index)
        restoring.restore_catalog(self.catalog, whole)
        self._settle(now)
        restoring.restore_specs(self.agent, whole, now)
        restoring.restore_sessions(self.sessions, whole, now)
        restoring.restore_keys(self.kv, self.ledger, whole)
        restoring.restore_tokens(self.tokens, whole)
        self.autopilot.become(whole.autopilot)

    def _settle(self, now: float) -> None:
        """What follows from fallen checks and nodes is done under the same index."""
        while self.catalog.fallen or self.catalog.fallen_nodes:
            fallen, self.catalog.fallen = self.catalog.fallen, []
            nodes, self.catalog.fallen_nodes = self.catalog.fallen_nodes, []
            for check in fallen:
                self.sessions.fail(check, now)
                if check.node == self.node and check.check_id not in self.catalog.checks.get(self.node, {}):
                    self.agent.forget(check.check_id)
            for node in nodes:
                self.sessions.end_of_node(node, now)

    def _may_lock(self, session: str, key: str) -> bool:
        if not session:
            raise Refused(500, "missing session")
        if len(session) != _UUID_LENGTH:
            raise Refused(500, "failed session lookup: index error: UUID must be 36 characters")
        if session not in self.sessions.live:
            raise Refused(500, f'invalid session "{session}"')
        return key not in self.sessions.delayed

    def _create_session(self, session: Session, now: float) -> str:
        if session.node not in self.catalog.nodes:
            raise Refused(500, "Missing node registration")
        checks = self.catalog.checks.get(session.node, {})
        for check_id in session.check_ids:
            check = checks.get(check_id)
            if check is None:
                raise Refused(500, f"Missing check '{check_id}' registration")
            if check.status == CRITICAL:
                raise Refused(500, f"Check '{check_id}' is in critical state")
        return self.sessions.create(session, now)

    def _register(self, command: commands.CatalogRegister) -> None:
        here = self.catalog.services.get(command.name, {})
        coming = command.service
        for check in command.checks:
            if (
                check.service_id
                and check.service_id not in here
                and not (coming and coming.id == check.service_id)
            ):
                raise Refused(
                    500, f"failed inserting check: Missing service registration for {check.service_id}"
                )
        if command.node:
            self.catalog.put_node(command.node)
        if coming:
            self.catalog.put_service(command.name, coming)
        for check in command.checks:
            service = self.catalog.services.get(command.name, {}).get(check.service_id)
            if service:
                check = msgspec.structs.replace(  # noqa: PLW2901  the check with its service's name
                    check, service_name=service.service, service_tags=service.tags
                )
            self.catalog.put_check(check)

    def _deregister(self, command: commands.CatalogDeregister) -> None:
        """Taken out, but for this node itself: its agent would only register it again, as Consul's does."""
        own = command.node == self.node
        if own and not command.service_id and command.check_id in ("", NODE_CHECK):
            return
        if command.service_id:
            self.catalog.drop_service(command.node, command.service_id)
        elif command.check_id:
            self.catalog.drop_check(command.node, command.check_id)
        else:
            self.catalog.drop_node(command.node)

    def _announce(self, node: Node) -> None:
        """This node is in the catalog as its agent keeps it; a name that it had before is not."""
        for other in [known.node for known in self.catalog.nodes.values() if known.id == node.id]:
            if other != node.node:
                self.catalog.drop_node(other)
        self.catalog.put_node(node)
        self.catalog.put_service(node.node, Service(id=OWN_SERVICE, service=OWN_SERVICE, port=8300))
        self.catalog.put_check(
            Check(
                node=node.node,
                check_id=NODE_CHECK,
                name="Serf Health Status",
                status=PASSING,
                output="Agent alive and reachable",
            )
        )

    def _expire(self, now: float) -> None:
        for timer, key in self.deadlines.due(now):
            match timer:
                case Timer.TTL:
                    self.agent.expired(key, now)
                case Timer.REAP:
                    self.agent.reap(key)
                case Timer.SESSION:
                    self.sessions.end(key, now)
                case Timer.LOCK_DELAY:
                    self.sessions.delay_over(key)
                case _:
                    assert_never(timer)
            self._settle(now)
