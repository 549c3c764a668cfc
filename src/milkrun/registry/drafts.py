"""What the catalog would be after some operations of a transaction, and those operations themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from milkrun.registry.catalog import Catalog
from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import Check, Node, Service

_Noun = TypeVar("_Noun", Node, Service, Check)


class CatalogDraft:
    """Reads see what the operations so far did; the catalog itself changes only when they are carried out."""

    def __init__(self, catalog: Catalog, ledger: Ledger, *, own: str) -> None:
        self._own = own
        self._catalog = catalog
        self._ledger = ledger
        self._nodes: dict[str, Node | None] = {}
        self._services: dict[tuple[str, str], Service | None] = {}
        self._checks: dict[tuple[str, str], Check | None] = {}
        self._steps: list[Callable[[], object]] = []

    def node(self, name: str) -> Node | None:
        """The node, None when there is none."""
        return self._nodes[name] if name in self._nodes else self._catalog.nodes.get(name)

    def service(self, node: str, service_id: str) -> Service | None:
        """The service, None when there is none."""
        if (node, service_id) in self._services:
            return self._services[node, service_id]
        return self._catalog.services.get(node, {}).get(service_id)

    def check(self, node: str, check_id: str) -> Check | None:
        """The check, None when there is none."""
        if (node, check_id) in self._checks:
            return self._checks[node, check_id]
        return self._catalog.checks.get(node, {}).get(check_id)

    def put_node(self, node: Node) -> Node:
        """The node as it will be registered."""
        drafted = self._nodes[node.node] = self._stamped(node, self.node(node.node))
        self._steps.append(lambda: self._catalog.put_node(node))
        return drafted

    def put_service(self, node: str, service: Service) -> Service:
        """The service as it will be registered; its checks will carry its name and tags."""
        drafted = self._services[node, service.id] = self._stamped(service, self.service(node, service.id))
        for check in self._checks_of(node, service.id):
            named = msgspec.structs.replace(check, service_name=service.service, service_tags=service.tags)
            self._checks[node, check.check_id] = self._stamped(named, check)
        self._steps.append(lambda: self._catalog.put_service(node, service))
        return drafted

    def put_check(self, check: Check) -> Check:
        """The check as it will be registered, with its service's name and tags."""
        service = self.service(check.node, check.service_id) if check.service_id else None
        if service:
            check = msgspec.structs.replace(check, service_name=service.service, service_tags=service.tags)
        old = self.check(check.node, check.check_id)
        drafted = self._checks[check.node, check.check_id] = self._stamped(check, old)
        self._steps.append(lambda: self._catalog.put_check(check))
        return drafted

    def drop_node(self, name: str) -> None:
        """The node and all on it will be gone; but for this registry's own node, which its agent keeps."""
        if name == self._own:
            return
        for service_id in self._ids(self._catalog.services, self._services, name):
            self._services[name, service_id] = None
        for check_id in self._ids(self._catalog.checks, self._checks, name):
            self._checks[name, check_id] = None
        self._nodes[name] = None
        self._steps.append(lambda: self._catalog.drop_node(name))

    def drop_service(self, node: str, service_id: str) -> None:
        """The service and its checks will be gone."""
        for check in self._checks_of(node, service_id):
            self._checks[node, check.check_id] = None
        self._services[node, service_id] = None
        self._steps.append(lambda: self._catalog.drop_service(node, service_id))

    def drop_check(self, node: str, check_id: str) -> None:
        """The check will be gone."""
        self._checks[node, check_id] = None
        self._steps.append(lambda: self._catalog.drop_check(node, check_id))

    def carry_out(self) -> None:
        """The catalog is what the draft said."""
        for step in self._steps:
            step()

    def _checks_of(self, node: str, service_id: str) -> list[Check]:
        found = (self.check(node, each) for each in self._ids(self._catalog.checks, self._checks, node))
        return [check for check in found if check and check.service_id == service_id]

    def _stamped(self, new: _Noun, old: _Noun | None) -> _Noun:
        if old is not None:
            same = msgspec.structs.replace(new, create_index=old.create_index, modify_index=old.modify_index)
            if same == old:
                return old
        index = self._ledger.coming_index
        created = old.create_index if old else index
        return msgspec.structs.replace(new, create_index=created, modify_index=index)

    @staticmethod
    def _ids(
        kept: dict[str, dict[str, _Noun]], drafted: dict[tuple[str, str], _Noun | None], node: str
    ) -> set[str]:
        return {*kept.get(node, {}), *(each for at, each in drafted if at == node)}
