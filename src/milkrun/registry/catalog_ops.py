"""A transaction's operations on nodes, services and checks. Pure.

Verbs and error texts: Consul's (agent/consul/state/txn.go, observed on 1.8.7 by the contract suite).
"""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

from milkrun.registry.commands import CheckOp, NodeOp, ServiceOp
from milkrun.registry.drafts import CatalogDraft
from milkrun.registry.nouns import Check, Node, Service
from milkrun.registry.refusal import Refused

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UUID_LENGTH = 36


class _Indexed(Protocol):
    @property
    def modify_index(self) -> int: ...


def node_step(draft: CatalogDraft, operation: NodeOp) -> list[Node]:
    """The node that the operation shows; Refused when it does not hold."""
    wanted = operation.node
    name, old = wanted.node, draft.node(wanted.node)
    if not name:
        raise _no("Must provide node")
    if wanted.id and not _UUID.fullmatch(wanted.id):
        wrong = "wrong length" if len(wanted.id) != _UUID_LENGTH else "improperly formatted"
        raise _no(f"Bad node ID: uuid string is {wrong}")
    match operation.verb:
        case "get":
            if old is None:
                raise _no(f'node "{name}" doesn\'t exist')
            return [old]
        case "set":
            return [draft.put_node(wanted)]
        case "cas":
            _is_current(old, operation.index, f'failed to set node "{name}"')
            return [draft.put_node(wanted)]
        case "delete":
            draft.drop_node(name)
            return []
        case "delete-cas":
            _is_there(old, operation.index, f'failed to delete node "{name}"')
            draft.drop_node(name)
            return []
        case unknown:
            raise _no(f'unknown Node verb "{unknown}"')


def service_step(draft: CatalogDraft, operation: ServiceOp, *, only_reads: bool) -> list[Service]:
    """The service that the operation shows; Refused when it does not hold."""
    node, wanted = operation.node, operation.service
    old = draft.service(node, wanted.id)
    if not only_reads and not wanted.service:
        raise _no("Must provide service name with ID")
    what = f'service "{wanted.id}" on node "{node}"'
    match operation.verb:
        case "get":
            if old is None:
                raise _no(f"{what} doesn't exist")
            return [old]
        case "set":
            return [_put_service(draft, node, wanted)]
        case "cas":
            _is_current(old, operation.index, f"failed to set {what}")
            return [_put_service(draft, node, wanted)]
        case "delete":
            draft.drop_service(node, wanted.id)
            return []
        case "delete-cas":
            _is_there(old, operation.index, f"failed to delete {what}")
            draft.drop_service(node, wanted.id)
            return []
        case unknown:
            raise _no(f'unknown Service verb "{unknown}"')


def check_step(draft: CatalogDraft, operation: CheckOp) -> list[Check]:
    """The check that the operation shows; Refused when it does not hold."""
    wanted = operation.check
    node, check_id = wanted.node, wanted.check_id
    old = draft.check(node, check_id)
    match operation.verb:
        case "get":
            if old is None:
                raise _no(f'check "{check_id}" on node "{node}" doesn\'t exist')
            return [old]
        case "set":
            return [_put_check(draft, wanted)]
        case "cas":
            _is_current(old, operation.index, f'failed to set check "{check_id}" on node "{node}"')
            return [_put_check(draft, wanted)]
        case "delete":
            draft.drop_check(node, check_id)
            return []
        case "delete-cas":
            _is_there(old, operation.index, f'failed to delete check "{check_id}" on node "{node}"')
            draft.drop_check(node, check_id)
            return []
        case unknown:
            raise _no(f'unknown Check verb "{unknown}"')


def _put_service(draft: CatalogDraft, node: str, service: Service) -> Service:
    if draft.node(node) is None:
        raise _no("Missing node registration")
    return draft.put_service(node, service)


def _put_check(draft: CatalogDraft, check: Check) -> Check:
    if draft.node(check.node) is None:
        raise _no("Missing node registration")
    if check.service_id and draft.service(check.node, check.service_id) is None:
        raise _no("Missing service registration")
    return draft.put_check(msgspec.structs.replace(check, service_name="", service_tags=[]))


def _is_current(old: _Indexed | None, index: int, what: str) -> None:
    if (old.modify_index if old else 0) != index:
        raise _no(f"{what}, index is stale")


def _is_there(old: _Indexed | None, index: int, what: str) -> None:
    if old is None or old.modify_index != index:
        raise _no(f"{what}, index is stale")


def _no(why: str) -> Refused:
    return Refused(409, why)
