"""Nodes, services and checks, and which topics each change touches. Pure.

Putting what is already there changes nothing: no index, no write, no wake-up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from milkrun.registry import topics
from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import CRITICAL, Check, Node, Service

NODE, SERVICE, CHECK = "node", "service", "check"

_Noun = TypeVar("_Noun", Node, Service, Check)


class ServiceRow(msgspec.Struct, frozen=True):
    """A service as it lies on the disk: with its node."""

    node: str
    service: Service


class Catalog:
    """What is registered. `fallen` collects the checks that turned critical or vanished, for the sessions."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, dict[str, Service]] = {}
        """By node, then by id."""
        self.named: dict[str, dict[tuple[str, str], Service]] = {}
        """By service name, then by node and id."""
        self.checks: dict[str, dict[str, Check]] = {}
        """By node, then by check id."""
        self.service_checks: dict[tuple[str, str], dict[str, Check]] = {}
        """By node and service id (empty: the node's own checks), then by check id."""
        self.fallen: list[Check] = []
        self.fallen_nodes: list[str] = []

    # Reading

    def instances(self, name: str) -> list[tuple[str, Service]]:
        """The instances of a service with their nodes, in order."""
        return [(node, service) for (node, _), service in sorted(self.named.get(name, {}).items(), key=_key)]

    def checks_of(self, node: str, service_id: str) -> list[Check]:
        """The checks that speak of an instance: its node's, then its own, each in order."""
        own = sorted(self.service_checks.get((node, service_id), {}).items())
        nodes = sorted(self.service_checks.get((node, ""), {}).items()) if service_id else []
        return [check for _, check in (*nodes, *own)]

    # Loading from the disk

    def load_node(self, node: Node) -> None:
        """The node is there."""
        self.nodes[node.node] = node

    def load_service(self, node: str, service: Service) -> None:
        """The service is there."""
        self.services.setdefault(node, {})[service.id] = service
        self.named.setdefault(service.service, {})[node, service.id] = service

    def load_check(self, check: Check) -> None:
        """The check is there."""
        self.checks.setdefault(check.node, {})[check.check_id] = check
        self.service_checks.setdefault((check.node, check.service_id), {})[check.check_id] = check

    # Changing

    def put_node(self, node: Node) -> None:
        """The node is registered as given."""
        stamped = _stamped(node, self.nodes.get(node.node), self._ledger)
        if stamped is None:
            return
        self.load_node(stamped)
        self._ledger.put(NODE, node.node, stamped)
        self._ledger.touch(topics.NODES, topics.node(node.node), *self._service_topics(node.node))

    def put_service(self, node: str, service: Service) -> None:
        """The service is registered on the node as given; its checks carry its name and tags."""
        old = self.services.get(node, {}).get(service.id)
        stamped = _stamped(service, old, self._ledger)
        if stamped is None:
            return
        if old and old.service != service.service:
            self._forget_name(node, old)
            self._ledger.touch(topics.service(old.service))
        self.load_service(node, stamped)
        self._ledger.put(SERVICE, _row_key(node, service.id), ServiceRow(node, stamped))
        self._ledger.touch(
            topics.SERVICES,
            topics.node(node),
            topics.service(service.service),
            topics.service_of_node(node, service.id),
        )
        for check in list(self.service_checks.get((node, service.id), {}).values()):
            self.put_check(
                msgspec.structs.replace(check, service_name=service.service, service_tags=service.tags)
            )

    def put_check(self, check: Check) -> None:
        """The check is registered as given."""
        old = self.checks.get(check.node, {}).get(check.check_id)
        stamped = _stamped(check, old, self._ledger)
        if stamped is None:
            return
        if old and old.service_id != check.service_id:
            self.service_checks[check.node, old.service_id].pop(check.check_id)
            self._touch_check(old)
        self.load_check(stamped)
        self._ledger.put(CHECK, _row_key(check.node, check.check_id), stamped)
        self._touch_check(stamped)
        if stamped.status == CRITICAL and (old is None or old.status != CRITICAL):
            self.fallen.append(stamped)

    def drop_check(self, node: str, check_id: str) -> bool:
        """The check is not registered; False when it was not."""
        check = self.checks.get(node, {}).pop(check_id, None)
        if check is None:
            return False
        self.service_checks[node, check.service_id].pop(check_id)
        if not self.service_checks[node, check.service_id]:
            del self.service_checks[node, check.service_id]
        self._ledger.drop(CHECK, _row_key(node, check_id))
        self._touch_check(check)
        self.fallen.append(check)
        return True

    def drop_service(self, node: str, service_id: str) -> bool:
        """The service and its checks are not registered; False when it was not."""
        service = self.services.get(node, {}).get(service_id)
        if service is None:
            return False
        for check_id in list(self.service_checks.get((node, service_id), {})):
            self.drop_check(node, check_id)
        del self.services[node][service_id]
        self._forget_name(node, service)
        self._ledger.drop(SERVICE, _row_key(node, service_id))
        self._ledger.touch(
            topics.SERVICES,
            topics.node(node),
            topics.service(service.service),
            topics.service_of_node(node, service_id),
        )
        return True

    def drop_node(self, node: str) -> bool:
        """The node with all that is on it is not registered; False when it was not."""
        if node not in self.nodes:
            return False
        for service_id in list(self.services.get(node, {})):
            self.drop_service(node, service_id)
        for check_id in list(self.checks.get(node, {})):
            self.drop_check(node, check_id)
        del self.nodes[node]
        self.services.pop(node, None)
        self.checks.pop(node, None)
        self._ledger.drop(NODE, node)
        self._ledger.touch(topics.NODES, topics.node(node))
        self.fallen_nodes.append(node)
        return True

    def _forget_name(self, node: str, service: Service) -> None:
        of_name = self.named[service.service]
        del of_name[node, service.id]
        if not of_name:
            del self.named[service.service]

    def _service_topics(self, node: str) -> Iterable[str]:
        return {topics.service(service.service) for service in self.services.get(node, {}).values()}

    def _touch_check(self, check: Check) -> None:
        self._ledger.touch(topics.CHECKS, topics.node(check.node))
        if check.service_id:
            self._ledger.touch(topics.service(check.service_name))
        else:
            self._ledger.touch(*self._service_topics(check.node))


def _stamped(new: _Noun, old: _Noun | None, ledger: Ledger) -> _Noun | None:
    """`new` with its indexes; None when it is what is there already."""
    if old is not None:
        same = msgspec.structs.replace(new, create_index=old.create_index, modify_index=old.modify_index)
        if same == old:
            return None
    index = ledger.bump()
    return msgspec.structs.replace(new, create_index=old.create_index if old else index, modify_index=index)


def _key(item: tuple[tuple[str, str], Service]) -> tuple[str, str]:
    return item[0]


def _row_key(node: str, name: str) -> str:
    """One text for the pair; the length says where the second part starts, whatever the names contain."""
    return f"{len(node)}:{node}:{name}"
