"""/v1/catalog: nodes and services, with or without an agent."""

from __future__ import annotations

from typing import Any

import msgspec

from milkrun.registry import commands, topics, views
from milkrun.registry.access import sight
from milkrun.registry.access.authority import Authority
from milkrun.registry.engine import Engine
from milkrun.registry.filters import shapes
from milkrun.registry.http import filtering
from milkrun.registry.http.asking import change
from milkrun.registry.http.bodies import ServiceBody, decode, folded, service_of
from milkrun.registry.http.health import named, topic_answer
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.nouns import CRITICAL, DATACENTER, STATUSES, Check, Node
from milkrun.registry.refusal import Refused

_NO_NAME = "Must provide service name (Service.Service) when registering a service"
_NO_NODE = {"Node": None, "Services": None}


class CheckRow(msgspec.Struct, rename=folded):
    """A check as the catalog's registrations and transactions bring it."""

    check_id: str = ""
    name: str = ""
    status: str = CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = ""
    definition: dict[str, Any] = {}


class _Registration(msgspec.Struct, rename=folded):
    datacenter: str = ""
    id: str = ""
    node: str = ""
    address: str = ""
    tagged_addresses: dict[str, str] | None = None
    node_meta: dict[str, str] | None = None
    service: ServiceBody | None = None
    check: CheckRow | None = None
    checks: list[CheckRow] = []
    skip_node_update: bool = False


class _Deregistration(msgspec.Struct, rename=folded):
    datacenter: str = ""
    node: str = ""
    service_id: str = ""
    check_id: str = ""


async def datacenters(_: Engine, __: Request) -> Reply:
    """The one datacenter."""
    return Reply.json([DATACENTER])


async def nodes(engine: Engine, request: Request) -> Reply:
    """All nodes, or those with some meta."""
    has_meta = filtering.node_meta(request)

    def view() -> list[Node]:
        return [each for _, each in sorted(engine.machine.catalog.nodes.items()) if has_meta(each.meta)]

    return await topic_answer(engine, request, topics.NODES, view, shapes.NODE)


async def services(engine: Engine, request: Request) -> Reply:
    """All service names with their tags."""
    has_meta = filtering.node_meta(request)
    test = filtering.test_of(request, shapes.CATALOG_ROW)

    def view() -> dict[str, list[str]]:
        catalog = engine.machine.catalog
        if not filtering.asked(request):
            return views.catalog_services(catalog)
        nodes = {name for name, node in catalog.nodes.items() if has_meta(node.meta)}
        rows = (row for row in views.catalog_rows(catalog) if row.node in nodes)
        return views.tags_by_name(filtering.kept(rows, test))

    return await topic_answer(engine, request, topics.SERVICES, view, narrow=sight.of_names)


async def service(engine: Engine, request: Request) -> Reply:
    """The instances of a service, healthy or not."""
    name = named(request, "service name")
    tags = tuple(request.query.get("tag", ()))
    has_meta = filtering.node_meta(request)

    def view() -> list[views.CatalogEntry]:
        found = views.catalog_service(engine.machine.catalog, name, tags)
        return [each for each in found if has_meta(each.node_meta)]

    return await topic_answer(engine, request, topics.service(name), view, shapes.CATALOG_ROW)


async def connect(engine: Engine, request: Request) -> Reply:
    """The instances that take part in a service mesh: there is none here."""
    name = named(request, "service name")
    return await topic_answer(engine, request, topics.service(name), list, shapes.CATALOG_ROW)


async def node(engine: Engine, request: Request) -> Reply:
    """A node with its services, null when there is none."""
    name = named(request, "node name")
    test = filtering.test_of(request, shapes.SERVICE)

    def view() -> dict[str, Any] | None:
        found = views.catalog_node(engine.machine.catalog, name)
        return found and {**found, "Services": filtering.kept_by_name(found["Services"], test)}

    return await topic_answer(engine, request, topics.node(name), view, narrow=sight.of_node)


async def node_services(engine: Engine, request: Request) -> Reply:
    """A node with its services in a list; both null when there is no such node."""
    name = named(request, "node name")
    test = filtering.test_of(request, shapes.SERVICE)

    def view() -> dict[str, Any]:
        found = views.catalog_node(engine.machine.catalog, name)
        if found is None:
            return dict(_NO_NODE)
        return {**found, "Services": filtering.kept(found["Services"].values(), test)}

    def narrow(who: Authority, whole: dict[str, Any]) -> dict[str, Any]:
        return sight.of_node(who, whole) or dict(_NO_NODE)

    return await topic_answer(engine, request, topics.node(name), view, narrow=narrow)


async def register(engine: Engine, request: Request) -> Reply:
    """Registers a node, with a service and checks on it."""
    body = decode(await request.body(), _Registration)
    _is_here(body.datacenter)
    if not body.node:
        raise Refused(500, "Must provide node")
    if not body.address and not body.skip_node_update:
        raise Refused(500, "Must provide address if SkipNodeUpdate is not set")
    registered = None
    if body.service:
        if not body.service.service:
            raise Refused(500, _NO_NAME if not body.service.id else "Must provide service name with ID")
        registered = service_of(body.service, body.service.service)
    checks = [_check(body.node, row) for row in ([body.check] if body.check else []) + body.checks]
    skipped = body.skip_node_update and body.node in engine.machine.catalog.nodes
    await change(
        engine,
        request,
        commands.CatalogRegister(body.node, None if skipped else _node(body), registered, checks),
    )
    return Reply.encoded(b"true")


async def deregister(engine: Engine, request: Request) -> Reply:
    """Takes out a service, a check or a node."""
    body = decode(await request.body(), _Deregistration)
    _is_here(body.datacenter)
    if not body.node:
        raise Refused(500, "Must provide node")
    await change(engine, request, commands.CatalogDeregister(body.node, body.service_id, body.check_id))
    return Reply.encoded(b"true")


def _is_here(datacenter: str) -> None:
    if datacenter not in ("", DATACENTER):
        raise Refused(500, "No path to datacenter")


def _node(body: _Registration) -> Node:
    return Node(
        id=body.id,
        node=body.node,
        address=body.address,
        tagged_addresses=body.tagged_addresses or None,
        meta=body.node_meta or None,
    )


def _check(node: str, row: CheckRow) -> Check:
    if not row.check_id and not row.name:
        raise Refused(500, "Must provide a check ID or name")
    if row.status not in STATUSES:
        raise Refused(400, f"Invalid check status: '{row.status}'")  # Consul keeps it; nobody could read it
    return check_row(node, row)


def check_row(node: str, row: CheckRow) -> Check:
    """The check that the row describes."""
    return Check(
        node=node,
        check_id=row.check_id or row.name,
        name=row.name,
        status=row.status or CRITICAL,
        notes=row.notes,
        output=row.output,
        service_id=row.service_id,
        definition=row.definition,
    )


ROUTES = (
    Route("GET", "/v1/catalog/datacenters", datacenters, "none", "none"),
    Route("GET", "/v1/catalog/nodes", nodes, "node", "read"),
    Route("GET", "/v1/catalog/services", services, "service", "read"),
    Route("GET", "/v1/catalog/service/", service, "service+node", "read"),
    Route("GET", "/v1/catalog/node/", node, "node", "read"),
    Route("GET", "/v1/catalog/node-services/", node_services, "node", "read"),
    Route("GET", "/v1/catalog/connect/", connect, "service", "read"),
    Route("PUT", "/v1/catalog/register", register, "node", "write"),
    Route("PUT", "/v1/catalog/deregister", deregister, "node", "write"),
)
