"""/v1/catalog: nodes and services, with or without an agent."""

from __future__ import annotations

from typing import Any

import msgspec

from milkrun.registry import commands, topics, views
from milkrun.registry.engine import Engine
from milkrun.registry.http.bodies import ServiceBody, decode, service_of
from milkrun.registry.http.health import named, topic_answer
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.nouns import CRITICAL, DATACENTER, STATUSES, Check, Node
from milkrun.registry.refusal import Refused


class _CheckRow(msgspec.Struct, rename=lambda field: field.replace("_", "")):
    check_id: str = ""
    name: str = ""
    status: str = CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = ""
    definition: dict[str, Any] = {}


class _Registration(msgspec.Struct, rename=lambda field: field.replace("_", "")):
    id: str = ""
    node: str = ""
    address: str = ""
    tagged_addresses: dict[str, str] | None = None
    node_meta: dict[str, str] | None = None
    service: ServiceBody | None = None
    check: _CheckRow | None = None
    checks: list[_CheckRow] = []
    skip_node_update: bool = False


class _Deregistration(msgspec.Struct, rename=lambda field: field.replace("_", "")):
    node: str = ""
    service_id: str = ""
    check_id: str = ""


async def datacenters(_: Engine, __: Request) -> Reply:
    """The one datacenter."""
    return Reply.json([DATACENTER])


async def nodes(engine: Engine, request: Request) -> Reply:
    """All nodes."""
    return await topic_answer(
        engine,
        request,
        topics.NODES,
        lambda: [each for _, each in sorted(engine.machine.catalog.nodes.items())],
    )


async def services(engine: Engine, request: Request) -> Reply:
    """All service names with their tags."""
    return await topic_answer(
        engine, request, topics.SERVICES, lambda: views.catalog_services(engine.machine.catalog)
    )


async def service(engine: Engine, request: Request) -> Reply:
    """The instances of a service, healthy or not."""
    name = named(request, "service name")
    tags = tuple(request.query.get("tag", ()))
    return await topic_answer(
        engine,
        request,
        topics.service(name),
        lambda: views.catalog_service(engine.machine.catalog, name, tags),
    )


async def node(engine: Engine, request: Request) -> Reply:
    """A node with its services, null when there is none."""
    name = named(request, "node name")
    return await topic_answer(
        engine, request, topics.node(name), lambda: views.catalog_node(engine.machine.catalog, name)
    )


async def register(engine: Engine, request: Request) -> Reply:
    """Registers a node, with a service and checks on it."""
    body = decode(await request.body(), _Registration)
    if not body.node:
        raise Refused(500, "Must provide node")
    if not body.address and not body.skip_node_update:
        raise Refused(500, "Must provide address if SkipNodeUpdate is not set")
    registered = None
    if body.service:
        if not (body.service.service or body.service.id):
            raise Refused(500, "Must provide service name (Service.Service) when registering a service")
        registered = service_of(body.service, body.service.service or body.service.id)
    checks = [_check(body.node, row) for row in ([body.check] if body.check else []) + body.checks]
    skipped = body.skip_node_update and body.node in engine.machine.catalog.nodes
    await engine.submit(
        commands.CatalogRegister(body.node, None if skipped else _node(body), registered, checks)
    )
    return Reply.encoded(b"true")


async def deregister(engine: Engine, request: Request) -> Reply:
    """Takes out a service, a check or a node."""
    body = decode(await request.body(), _Deregistration)
    if not body.node:
        raise Refused(500, "Must provide node")
    await engine.submit(commands.CatalogDeregister(body.node, body.service_id, body.check_id))
    return Reply.encoded(b"true")


def _node(body: _Registration) -> Node:
    return Node(
        id=body.id,
        node=body.node,
        address=body.address,
        tagged_addresses=body.tagged_addresses or None,
        meta=body.node_meta or None,
    )


def _check(node: str, row: _CheckRow) -> Check:
    if not row.check_id and not row.name:
        raise Refused(500, "Must provide a check ID or name")
    if row.status not in STATUSES:
        raise Refused(500, f"Invalid check status: '{row.status}'")
    return Check(
        node=node,
        check_id=row.check_id or row.name,
        name=row.name,
        status=row.status,
        notes=row.notes,
        output=row.output,
        service_id=row.service_id,
        definition=row.definition,
    )


ROUTES = (
    Route("GET", "/v1/catalog/datacenters", datacenters, "none", "none"),
    Route("GET", "/v1/catalog/nodes", nodes, "node", "read"),
    Route("GET", "/v1/catalog/services", services, "service", "read"),
    Route("GET", "/v1/catalog/service/", service, "service", "read"),
    Route("GET", "/v1/catalog/node/", node, "node", "read"),
    Route("PUT", "/v1/catalog/register", register, "node", "write"),
    Route("PUT", "/v1/catalog/deregister", deregister, "node", "write"),
)
