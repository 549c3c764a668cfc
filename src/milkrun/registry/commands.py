"""Everything that can be asked to change, as values. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from milkrun.registry.access.tokens import Policy, Role, Token
from milkrun.registry.autopilot import Configuration
from milkrun.registry.events import Event
from milkrun.registry.nouns import Check, CheckSpec, Node, Service, Session
from milkrun.registry.snapshot import Contents


class Command(msgspec.Struct, frozen=True):
    """One change, applied whole or not at all."""


class KvCommand(Command, frozen=True):
    """A change of one key, or of those below a prefix."""


class KvPut(KvCommand, frozen=True):
    """Sets a key. True."""

    key: str
    value: bytes
    flags: int = 0


class KvCas(KvCommand, frozen=True):
    """Sets a key if its ModifyIndex is `index` (0: if it is not there). Whether it did."""

    key: str
    value: bytes
    flags: int
    index: int


class KvLock(KvCommand, frozen=True):
    """Sets a key and holds it for the session. Whether it did."""

    key: str
    value: bytes
    flags: int
    session: str


class KvUnlock(KvCommand, frozen=True):
    """Sets a key that the session holds, and lets go of it. Whether it did."""

    key: str
    value: bytes
    flags: int
    session: str


class KvDelete(KvCommand, frozen=True):
    """Deletes a key. True."""

    key: str


class KvDeleteCas(KvCommand, frozen=True):
    """Deletes a key if its ModifyIndex is `index`. Whether it is gone."""

    key: str
    index: int


class KvDeleteTree(KvCommand, frozen=True):
    """Deletes every key that starts with `prefix`. True."""

    prefix: str


class TxnOp(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a transaction; the fields that its verb does not need are passed over."""

    verb: str
    key: str = ""
    value: bytes | None = None
    flags: int = 0
    index: int = 0
    session: str = ""


class NodeOp(msgspec.Struct, frozen=True):
    """One operation of a transaction on a node; `index` is for its two `cas` verbs."""

    verb: str
    node: Node
    index: int = 0


class ServiceOp(msgspec.Struct, frozen=True):
    """One operation of a transaction on a service of a node."""

    verb: str
    node: str
    service: Service
    index: int = 0


class CheckOp(msgspec.Struct, frozen=True):
    """One operation of a transaction on a check."""

    verb: str
    check: Check
    index: int = 0


AnyOp = TxnOp | NodeOp | ServiceOp | CheckOp


class Txn(Command, frozen=True):
    """Does all operations, or none. A TxnResult."""

    operations: Sequence[AnyOp]


class AgentCommand(Command, frozen=True):
    """A change of what this registry's own agent looks after."""


class RegisterService(AgentCommand, frozen=True):
    """Registers a service of this node with its checks."""

    service: Service
    checks: list[CheckSpec]
    replace_checks: bool = False


class DeregisterService(AgentCommand, frozen=True):
    """Takes a service of this node out; it need not be there."""

    service_id: str


class RegisterCheck(AgentCommand, frozen=True):
    """Registers a check of this node or of one of its services."""

    check: CheckSpec


class DeregisterCheck(AgentCommand, frozen=True):
    """Takes a check of this node out; it need not be there."""

    check_id: str


class ReportCheck(AgentCommand, frozen=True):
    """Says how a TTL check stands."""

    check_id: str
    status: str
    output: str


class ReportProbe(AgentCommand, frozen=True):
    """Says what a probe found; nothing changes if the check is not defined as it was then."""

    check: CheckSpec
    status: str
    output: str


class MaintainService(AgentCommand, frozen=True):
    """Puts a service of this node into maintenance, or takes it out."""

    service_id: str
    enable: bool
    reason: str


class MaintainNode(AgentCommand, frozen=True):
    """Puts this node into maintenance, or takes it out."""

    enable: bool
    reason: str


class CatalogRegister(Command, frozen=True):
    """Registers a node, with a service and checks on it, past any agent. None leaves the node as it is."""

    name: str
    node: Node | None
    service: Service | None
    checks: list[Check]


class CatalogDeregister(Command, frozen=True):
    """Takes out a service, a check, or (with neither) the whole node."""

    node: str
    service_id: str = ""
    check_id: str = ""


class HearEvent(Command, frozen=True):
    """Adds an event to those that this node heard. Nothing of it goes to the disk."""

    event: Event


class Restore(Command, frozen=True):
    """Makes the state what it was when the snapshot was taken."""

    contents: Contents


class SessionCommand(Command, frozen=True):
    """A session begins, goes on or ends."""


class CreateSession(SessionCommand, frozen=True):
    """Starts a session. Its id."""

    session: Session


class RenewSession(SessionCommand, frozen=True):
    """Starts a session's time to live anew. The session, None when there is none."""

    session_id: str


class DestroySession(SessionCommand, frozen=True):
    """Ends a session; it need not be there. True."""

    session_id: str


class AccessCommand(Command, frozen=True):
    """A change of what the holders of tokens may do."""


class PutToken(AccessCommand, frozen=True):
    """Makes a token, or changes it. The token as it is kept."""

    token: Token


class DropToken(AccessCommand, frozen=True):
    """Deletes a token; it need not be there. True."""

    accessor: str


class PutPolicy(AccessCommand, frozen=True):
    """Makes a policy, or changes it. The policy as it is kept."""

    policy: Policy


class DropPolicy(AccessCommand, frozen=True):
    """Deletes a policy; it need not be there. True."""

    policy_id: str


class PutRole(AccessCommand, frozen=True):
    """Makes a role, or changes it. The role as it is kept."""

    role: Role


class DropRole(AccessCommand, frozen=True):
    """Deletes a role; it need not be there. True."""

    role_id: str


class ConfigureAutopilot(Command, frozen=True):
    """Sets how servers are looked after; with `cas` if that is still of this index. Whether it did."""

    configuration: Configuration
    cas: int | None = None


class Announce(Command, frozen=True):
    """Registers this registry's own node."""

    node: Node


class Expire(Command, frozen=True):
    """Does what is due by now."""
