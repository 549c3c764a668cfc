"""Which changes an authority may make. Every change to the state is asked about here, and nowhere else. Pure.

What a rule must grant is what Consul asks for: writing on the service for its instances and their checks, on the
node for the node and its own checks, on the session's node for sessions, on the tokens for tokens and snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from milkrun.registry import commands
from milkrun.registry.access.authority import Authority
from milkrun.registry.access.rules import Resource
from milkrun.registry.catalog import Catalog
from milkrun.registry.commands import AnyOp, CheckOp, NodeOp, ServiceOp, TxnOp
from milkrun.registry.nouns import Check, Node
from milkrun.registry.refusal import Refused
from milkrun.registry.state import Machine
from milkrun.registry.txn import TxnError, TxnResult

DENIED = "Permission denied"
_KEY_LOOKS = frozenset({"check-index", "check-session", "check-not-exists"})
_PUTS = frozenset({"set", "cas"})
"""What a check beside them may speak of: only these are asked whether their name is the token's to write."""
_SHOWN = frozenset({"get", "get-tree"})
"""What these show is narrowed when it is sent (see sight.py), as Consul does."""


def guard(authority: Authority, command: commands.Command, machine: Machine) -> TxnResult | None:
    """None when the authority may make the change; for a transaction else the result that says what it may not.

    Raises Refused (403) for any other change.
    """
    if authority.writes_all:
        return None
    if isinstance(command, commands.Txn):
        return _denied_operations(authority, command.operations, machine.catalog)
    if not _permits(authority, command, machine):
        raise Refused(403, DENIED)
    return None


def _permits(authority: Authority, command: commands.Command, machine: Machine) -> bool:
    """Also False for what only the registry itself does, and for whatever is forgotten here."""
    match command:
        case commands.KvDeleteTree():
            return authority.writes_below(Resource.KEY, command.prefix)
        case (
            commands.KvPut()
            | commands.KvCas()
            | commands.KvLock()
            | commands.KvUnlock()
            | commands.KvDelete()
            | commands.KvDeleteCas()
        ):
            return authority.writes(Resource.KEY, command.key)
        case commands.CatalogRegister():
            return _may_register(authority, machine.catalog, command)
        case commands.CatalogDeregister():
            return _may_deregister(authority, machine.catalog, command)
        case commands.HearEvent():
            return authority.writes(Resource.EVENT, command.event.name)
        case commands.CreateSession():
            return authority.writes(Resource.SESSION, command.session.node)
        case commands.RenewSession() | commands.DestroySession():
            session = machine.sessions.live.get(command.session_id)
            return session is None or authority.writes(Resource.SESSION, session.node)
        case commands.AccessCommand() | commands.Restore():
            return authority.writes(Resource.ACL)
        case commands.ConfigureAutopilot():
            return authority.writes(Resource.OPERATOR)
        case _:
            return _permits_agent(authority, command, machine.catalog, machine.node)


def _permits_agent(authority: Authority, command: commands.Command, catalog: Catalog, own: str) -> bool:
    """What is asked of the agent of this node."""
    match command:
        case commands.RegisterService():
            return _may_be_service(
                authority, catalog, own, command.service.id, command.service.service
            ) and all(_may_write_check(authority, catalog, own, check.check_id) for check in command.checks)
        case commands.DeregisterService() | commands.MaintainService():
            return _may_write_service(authority, catalog, own, command.service_id)
        case commands.RegisterCheck():
            known = _may_write_check(authority, catalog, own, command.check.check_id)
            return known and _may_write_service(authority, catalog, own, command.check.service_id)
        case commands.DeregisterCheck() | commands.ReportCheck():
            return _may_write_check(authority, catalog, own, command.check_id)
        case commands.MaintainNode():
            return authority.writes(Resource.NODE, own)
        case _:
            return False


def _may_write_service(authority: Authority, catalog: Catalog, node: str, service_id: str) -> bool:
    """Also for one that is not there: nothing would change. The empty id is the node itself."""
    if not service_id:
        return authority.writes(Resource.NODE, node)
    known = catalog.services.get(node, {}).get(service_id)
    return known is None or authority.writes(Resource.SERVICE, known.service)


def _may_be_service(authority: Authority, catalog: Catalog, node: str, service_id: str, name: str) -> bool:
    """A registration under an id that another service has takes that one's place."""
    return authority.writes(Resource.SERVICE, name) and _may_write_service(
        authority, catalog, node, service_id or name
    )


def _may_write_check(authority: Authority, catalog: Catalog, node: str, check_id: str) -> bool:
    known = catalog.checks.get(node, {}).get(check_id)
    return known is None or _may_write_service(authority, catalog, node, known.service_id)


def _may_register(authority: Authority, catalog: Catalog, command: commands.CatalogRegister) -> bool:
    if (
        command.node
        and not _is_known(catalog, command.node)
        and not authority.writes(Resource.NODE, command.name)
    ):
        return False
    coming = {}
    if service := command.service:
        coming[service.id] = service.service
        if not _may_be_service(authority, catalog, command.name, service.id, service.service):
            return False
    return all(_may_put_check(authority, catalog, check, coming) for check in command.checks)


def _is_known(catalog: Catalog, node: Node) -> bool:
    """Whether the registration leaves the node as it is: that takes no right on it."""
    known = catalog.nodes.get(node.node)
    return known is not None and known == msgspec.structs.replace(
        node, id=node.id or known.id, create_index=known.create_index, modify_index=known.modify_index
    )


def _may_put_check(authority: Authority, catalog: Catalog, check: Check, coming: dict[str, str]) -> bool:
    """`coming` are the services, by id, that come with the check: it may speak of one that is not there yet."""
    if not _may_write_check(authority, catalog, check.node, check.check_id):
        return False
    if check.service_id in coming:
        return authority.writes(Resource.SERVICE, coming[check.service_id])
    return _may_write_service(authority, catalog, check.node, check.service_id)


def _may_deregister(authority: Authority, catalog: Catalog, command: commands.CatalogDeregister) -> bool:
    """Who may write a node may take out what is on it."""
    if authority.writes(Resource.NODE, command.node):
        return True
    if command.service_id:
        return _may_write_service(authority, catalog, command.node, command.service_id)
    return bool(command.check_id) and _may_write_check(authority, catalog, command.node, command.check_id)


def _denied_operations(
    authority: Authority, operations: Sequence[AnyOp], catalog: Catalog
) -> TxnResult | None:
    coming = {
        (each.node, each.service.id): each.service.service
        for each in operations
        if isinstance(each, ServiceOp) and each.verb in _PUTS
    }
    errors = [
        TxnError(place, DENIED)
        for place, operation in enumerate(operations)
        if not _may_do(authority, operation, catalog, coming)
    ]
    return TxnResult(None, errors) if errors else None


def _may_do(
    authority: Authority, operation: AnyOp, catalog: Catalog, coming: dict[tuple[str, str], str]
) -> bool:
    if operation.verb in _SHOWN:
        return True
    match operation:
        case TxnOp():
            if operation.verb in _KEY_LOOKS:
                return authority.reads(Resource.KEY, operation.key)
            if operation.verb == "delete-tree":
                return authority.writes_below(Resource.KEY, operation.key)
            return authority.writes(Resource.KEY, operation.key)
        case NodeOp():
            return authority.writes(Resource.NODE, operation.node.node)
        case ServiceOp():
            service = operation.service
            return _may_be_service(authority, catalog, operation.node, service.id, service.service)
        case CheckOp():
            here = {
                service_id: name
                for (node, service_id), name in coming.items()
                if node == operation.check.node
            }
            return _may_put_check(authority, catalog, operation.check, here)
        case _:
            assert_never(operation)
