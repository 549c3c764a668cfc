"""What the catalog's and health's answers show, from the state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from milkrun.registry.catalog import Catalog
from milkrun.registry.nouns import (
    CRITICAL,
    NODE_MAINTENANCE,
    OWN_SERVICE,
    PASSING,
    SERVICE_MAINTENANCE,
    WARNING,
    Check,
    Node,
    Service,
    Weights,
    consul_name,
)


class HealthEntry(msgspec.Struct, frozen=True, rename=consul_name):
    """One instance with its node and all checks that speak of it."""

    node: Node
    service: Service
    checks: list[Check]


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """One instance with its node, in one flat row."""

    id: str
    node: str
    address: str
    datacenter: str
    tagged_addresses: dict[str, str] | None
    node_meta: dict[str, str] | None
    service_kind: str = ""
    service_id: str
    service_name: str
    service_tags: list[str]
    service_address: str
    service_weights: Weights
    service_meta: dict[str, str]
    service_port: int
    service_enable_tag_override: bool
    create_index: int
    modify_index: int


def health(catalog: Catalog, name: str, tags: Sequence[str], *, passing: bool) -> list[HealthEntry]:
    """The instances of a service that have all the tags; with `passing`, those whose every check passes."""
    found = []
    for node, service in catalog.instances(name):
        if not _tagged(service, tags):
            continue
        checks = catalog.checks_of(node, service.id)
        if not passing or all(check.status == PASSING for check in checks):
            found.append(HealthEntry(catalog.nodes[node], service, checks))
    return found


def service_checks(catalog: Catalog, name: str) -> list[Check]:
    """The checks of all instances of a service, without their nodes' own."""
    return [
        check
        for node, service in catalog.instances(name)
        for _, check in sorted(catalog.service_checks.get((node, service.id), {}).items())
    ]


def node_checks(catalog: Catalog, node: str) -> list[Check]:
    """All checks on a node."""
    return [check for _, check in sorted(catalog.checks.get(node, {}).items())]


def state_checks(catalog: Catalog, status: str) -> list[Check]:
    """All checks with this status; `any` gives all."""
    return [
        check
        for node in sorted(catalog.checks)
        for check in node_checks(catalog, node)
        if status in ("any", check.status)
    ]


def catalog_service(catalog: Catalog, name: str, tags: Sequence[str]) -> list[CatalogEntry]:
    """The instances of a service that have all the tags, healthy or not."""
    return [
        _flat(catalog.nodes[node], service)
        for node, service in catalog.instances(name)
        if _tagged(service, tags)
    ]


def catalog_rows(catalog: Catalog) -> Iterable[CatalogEntry]:
    """All instances of all services."""
    for name in sorted(catalog.named):
        yield from catalog_service(catalog, name, ())


def tags_by_name(rows: Iterable[CatalogEntry]) -> dict[str, list[str]]:
    """The service names that these instances have, with every tag."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.service_name, set()).update(row.service_tags)
    return {name: sorted(tags) for name, tags in found.items()}


def catalog_services(catalog: Catalog) -> dict[str, list[str]]:
    """The names of all services, with every tag that an instance has."""
    return {
        name: sorted({tag for service in instances.values() for tag in service.tags})
        for name, instances in sorted(catalog.named.items())
    }


def catalog_node(catalog: Catalog, node: str) -> dict[str, Any] | None:
    """A node with its services; None when there is none."""
    if node not in catalog.nodes:
        return None
    return {"Node": catalog.nodes[node], "Services": dict(sorted(catalog.services.get(node, {}).items()))}


def whole_node(catalog: Catalog, name: str) -> dict[str, Any]:
    """A node with its services and all its checks, as the UI asks for it."""
    services = [service for _, service in sorted(catalog.services.get(name, {}).items())]
    shown: dict[str, Any] = msgspec.to_builtins(catalog.nodes[name], order=None)
    return {**shown, "Services": services, "Checks": node_checks(catalog, name)}


def summaries(
    catalog: Catalog, kept: Callable[[list[HealthEntry]], list[HealthEntry]]
) -> list[dict[str, Any]]:
    """Each service with its tags, and, over the instances that are kept, nodes and how many checks stand how.

    A node's own check is counted with each of its instances, as Consul counts it.
    """
    found = []
    for name in sorted(catalog.named):
        entries = kept(health(catalog, name, (), passing=False))
        if not entries:
            continue
        statuses = [check.status for entry in entries for check in entry.checks]
        found.append(
            {
                "Name": name,
                "Tags": sorted({tag for entry in entries for tag in entry.service.tags}),
                "Nodes": sorted(entry.node.node for entry in entries),
                "InstanceCount": len(entries),
                "ChecksPassing": statuses.count(PASSING),
                "ChecksWarning": statuses.count(WARNING),
                "ChecksCritical": statuses.count(CRITICAL),
                "ExternalSources": None,
            }
        )
    return found


def agent_services(catalog: Catalog, node: str) -> dict[str, Service]:
    """The services that were registered with the agent of this node, by id."""
    return {
        service_id: agent_service(service)
        for service_id, service in sorted(catalog.services.get(node, {}).items())
        if service_id != OWN_SERVICE
    }


def agent_service(service: Service) -> Service:
    """The service as the agent shows it: meta is never null there."""
    return service if service.meta is not None else msgspec.structs.replace(service, meta={})


def agent_checks(catalog: Catalog, node: str, own_check: str) -> dict[str, Check]:
    """The checks that were registered with the agent of this node, by id."""
    return {
        check.check_id: agent_check(check)
        for check in node_checks(catalog, node)
        if check.check_id != own_check
    }


def agent_check(check: Check) -> Check:
    """The check as the agent shows it: the catalog's indexes are not the agent's to know."""
    return msgspec.structs.replace(check, create_index=0, modify_index=0)


def aggregated(checks: Iterable[Check]) -> str:
    """The status of an instance from all its checks: the worst one, and maintenance before all."""
    statuses = set()
    for check in checks:
        if check.check_id == NODE_MAINTENANCE or check.check_id.startswith(SERVICE_MAINTENANCE):
            return "maintenance"
        statuses.add(check.status)
    return next((status for status in (CRITICAL, WARNING) if status in statuses), PASSING)


def _tagged(service: Service, tags: Sequence[str]) -> bool:
    """Tags are compared without case, as Consul does."""
    if not tags:
        return True
    own = {tag.lower() for tag in service.tags}
    return all(tag.lower() in own for tag in tags)


def _flat(node: Node, service: Service) -> CatalogEntry:
    return CatalogEntry(
        id=node.id,
        node=node.node,
        address=node.address,
        datacenter=node.datacenter,
        tagged_addresses=node.tagged_addresses,
        node_meta=node.meta,
        service_id=service.id,
        service_name=service.service,
        service_tags=service.tags,
        service_address=service.address,
        service_weights=service.weights,
        service_meta=service.meta or {},
        service_port=service.port,
        service_enable_tag_override=service.enable_tag_override,
        create_index=service.create_index,
        modify_index=service.modify_index,
    )
