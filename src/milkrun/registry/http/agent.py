"""/v1/agent: this node, and the services registered with it."""

from __future__ import annotations

import hashlib

import msgspec
import structlog

from milkrun.registry import commands, topics, views
from milkrun.registry.access import sight
from milkrun.registry.access.authority import Authority, Mode
from milkrun.registry.access.permits import DENIED
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.filters import shapes
from milkrun.registry.http import filtering
from milkrun.registry.http.asking import authority, change, require, shown
from milkrun.registry.http.blocking import until_news
from milkrun.registry.http.bodies import ServiceBody, checks_of, decode, service_of, unknown_fields
from milkrun.registry.http.message import JSON, Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.http.status import RPC_PORT
from milkrun.registry.nouns import CRITICAL, DATACENTER, NODE_CHECK, Service
from milkrun.registry.refusal import Refused

VERSION = "1.8.7"
"""The version of Consul whose API this is; clients turn features on by it."""


async def own(engine: Engine, request: Request) -> Reply:
    """This node: every part an object, as Go clients decode it."""
    node = engine.own
    require(engine, request, Resource.AGENT, node.node, Level.READ)
    return Reply.json(
        {
            "Config": {
                "Datacenter": DATACENTER,
                "NodeName": node.node,
                "NodeID": node.id,
                "Revision": "",
                "Server": True,
                "Version": VERSION,
            },
            "DebugConfig": {"SessionTTLMin": "0s", "Datacenter": DATACENTER, "NodeName": node.node},
            "Coord": {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0, "Height": 0.00001},
            "Member": lan_member(engine),
            "Stats": {
                "agent": {
                    "services": str(len(engine.machine.catalog.services.get(node.node, {})) - 1),
                    "checks": str(len(engine.machine.agent.specs)),
                },
                "consul": {
                    "leader": "true",
                    "leader_addr": f"{node.address}:{RPC_PORT}",
                    "server": "true",
                    "acl": "disabled" if engine.gate.mode is Mode.OPEN else "enabled",
                },
                "raft": {"applied_index": str(engine.machine.ledger.index), "state": "Leader"},
            },
            "Meta": node.meta or {},
        }
    )


async def members(engine: Engine, request: Request) -> Reply:
    """The members of the cluster: this node."""
    if request.one("segment") not in (None, "", "_all"):
        raise Refused(500, "Network segments are not supported in this version of Consul")

    def narrow(who: Authority, whole: list[dict[str, object]]) -> list[dict[str, object]]:
        return whole if who.reads(Resource.NODE, engine.own.node) else []

    return shown(engine, request, [lan_member(engine)], narrow=narrow)


async def services(engine: Engine, request: Request) -> Reply:
    """The services registered here, by id."""
    test = filtering.test_of(request, shapes.SERVICE)
    found = views.agent_services(engine.machine.catalog, engine.machine.node)
    return shown(engine, request, filtering.kept_by_name(found, test), narrow=sight.of_values)


async def service(engine: Engine, request: Request) -> Reply:
    """One service registered here, with a hash of its content; with that `hash`, when the content is another."""
    _may_read_service(engine, request)
    known = request.one("hash") if request.query else None
    reply = _hashed(engine, request.rest)
    if known and reply.headers == _hash_header(known):
        await until_news(engine, request, topics.service_of_node(engine.machine.node, request.rest))
        _may_read_service(engine, request)
        reply = _hashed(engine, request.rest)
    return reply


def _may_read_service(engine: Engine, request: Request) -> None:
    """Also when there is none: then there is nothing to hide."""
    who = authority(engine, request)
    found = engine.machine.catalog.services.get(engine.machine.node, {}).get(request.rest)
    if found and not who.reads(Resource.SERVICE, found.service):
        raise Refused(403, DENIED)


def _hashed(engine: Engine, service_id: str) -> Reply:
    found = engine.machine.catalog.services.get(engine.machine.node, {}).get(service_id)
    if found is None:
        raise Refused(404, f"unknown service ID: {service_id}")
    shown = msgspec.to_builtins(views.agent_service(found))
    for stamp in ("CreateIndex", "ModifyIndex"):
        del shown[stamp]
    digest = hashlib.blake2b(msgspec.json.encode(shown, order="sorted"), digest_size=8).hexdigest()
    body = msgspec.json.encode({**shown, "ContentHash": digest})
    return Reply(200, body, JSON, headers=_hash_header(digest))


def _hash_header(digest: str) -> list[tuple[bytes, bytes]]:
    return [(b"X-Consul-ContentHash", digest.encode())]


async def checks(engine: Engine, request: Request) -> Reply:
    """The checks registered here, by id."""
    test = filtering.test_of(request, shapes.CHECK)
    found = views.agent_checks(engine.machine.catalog, engine.machine.node, NODE_CHECK)
    return shown(engine, request, filtering.kept_by_name(found, test), narrow=sight.of_checks_here)


async def register(engine: Engine, request: Request) -> Reply:
    """Registers a service with its checks."""
    raw = await request.body()
    body = decode(raw, ServiceBody)
    if not body.name:
        raise Refused(400, "Missing service name")
    registered = service_of(body, body.name)
    if registered.id not in engine.machine.catalog.services.get(engine.machine.node, {}):
        _say_what_is_passed_over(registered, raw)
    specs = checks_of(body, registered)
    replace = bool(request.query) and request.flag("replace-existing-checks")
    await change(engine, request, commands.RegisterService(registered, specs, replace))
    return Reply()


async def deregister(engine: Engine, request: Request) -> Reply:
    """Takes a service with its checks out."""
    if not request.rest:
        raise Refused(500, "ServiceID missing")
    await change(engine, request, commands.DeregisterService(request.rest))
    return Reply()


async def maintain_service(engine: Engine, request: Request) -> Reply:
    """Puts a service into maintenance, or takes it out."""
    if not request.rest:
        raise Refused(400, "Missing service ID")
    enable, reason = enabling(request)
    await change(engine, request, commands.MaintainService(request.rest, enable, reason))
    return Reply()


async def maintain_node(engine: Engine, request: Request) -> Reply:
    """Puts this node into maintenance, or takes it out."""
    enable, reason = enabling(request)
    await change(engine, request, commands.MaintainNode(enable, reason))
    return Reply()


async def health_by_id(engine: Engine, request: Request) -> Reply:
    """The health of one service registered here, also as the reply's status: 200, 429 or 503."""
    _may_read_service(engine, request)
    node, catalog = engine.machine.node, engine.machine.catalog
    found = catalog.services.get(node, {}).get(request.rest)
    if not request.rest:
        raise Refused(500, "Bad request: Missing serviceID")
    if found is None:
        reason = f"ServiceId {request.rest} not found"
        return _health(
            request, 404, CRITICAL, {"AggregatedStatus": CRITICAL, "Service": None, "Checks": None}, reason
        )
    shown = _shown_health(engine, found)
    status = str(shown["AggregatedStatus"])
    return _health(request, _STATUS_CODES[status], status, shown, status)


async def health_by_name(engine: Engine, request: Request) -> Reply:
    """The health of all services of a name registered here; the worst one gives the reply's status."""
    if not request.rest:
        raise Refused(500, "Bad request: Missing service Name")
    require(engine, request, Resource.SERVICE, request.rest, Level.READ)
    node = engine.machine.node
    found = [each for at, each in engine.machine.catalog.instances(request.rest) if at == node]
    if not found:
        return _health(request, 404, CRITICAL, [], f"ServiceName {request.rest} Not Found")
    shown = [_shown_health(engine, each) for each in found]
    worst = max((str(each["AggregatedStatus"]) for each in shown), key=list(_STATUS_CODES).index)
    return _health(request, _STATUS_CODES[worst], worst, shown, worst)


async def nothing_to_do(engine: Engine, request: Request) -> Reply:
    """Done: there is nothing to reload or to join here."""
    require(engine, request, Resource.AGENT, engine.own.node, Level.WRITE)
    return Reply()


def enabling(request: Request) -> tuple[bool, str]:
    """Whether maintenance is to be switched on, and why."""
    text = request.one("enable")
    if not text:
        raise Refused(400, "Missing value for enable")
    if text not in ("true", "false", "1", "0", "t", "f", "T", "F", "True", "False", "TRUE", "FALSE"):
        raise Refused(400, f'Invalid value for enable: "{text}"')
    return text in ("true", "1", "t", "T", "True", "TRUE"), request.one("reason") or ""


_STATUS_CODES = {"passing": 200, "warning": 429, "critical": 503, "maintenance": 503}


def _say_what_is_passed_over(registered: Service, raw: bytes) -> None:
    """Once for each instance that comes: clients register again and again."""
    if unknown := unknown_fields(msgspec.json.decode(raw), ServiceBody):
        structlog.get_logger("registry").warning(
            "a registration has fields that this registry does not know: they are passed over",
            service=registered.id,
            fields=", ".join(sorted(unknown))[:200],
        )


def _shown_health(engine: Engine, found: Service) -> dict[str, object]:
    checks = engine.machine.catalog.checks_of(engine.machine.node, found.id)
    own_checks = [views.agent_check(check) for check in checks if check.check_id != NODE_CHECK]
    return {
        "AggregatedStatus": views.aggregated(own_checks),
        "Service": views.agent_service(found),
        "Checks": own_checks,
    }


def _health(request: Request, code: int, status: str, shown: object, reason: str) -> Reply:
    headers = [(b"X-Consul-Reason", reason.encode("ascii", "replace"))]
    if request.one("format") == "text":
        return Reply(code, (reason if code == 404 else status).encode(), b"text/plain", headers=headers)
    return Reply(code, msgspec.json.encode(shown), JSON, headers=headers)


def lan_member(engine: Engine) -> dict[str, object]:
    """This node as a member of its cluster of one."""
    node = engine.own
    return {
        "Name": node.node,
        "Addr": node.address,
        "Port": 8301,
        "Tags": {
            "build": f"{VERSION}:",
            "dc": DATACENTER,
            "id": node.id,
            "port": str(RPC_PORT),
            "role": "consul",
            "segment": "",
            "vsn": "2",
        },
        "Status": 1,
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    }


ROUTES = (
    Route("GET", "/v1/agent/self", own, "agent", "read"),
    Route("GET", "/v1/agent/members", members, "node", "read"),
    Route("GET", "/v1/agent/services", services, "service", "read"),
    Route("GET", "/v1/agent/service/", service, "service", "read"),
    Route("GET", "/v1/agent/checks", checks, "service", "read"),
    Route("PUT", "/v1/agent/service/register", register, "service", "write"),
    Route("PUT", "/v1/agent/service/deregister/", deregister, "service", "write"),
    Route("PUT", "/v1/agent/service/maintenance/", maintain_service, "service", "write"),
    Route("PUT", "/v1/agent/maintenance", maintain_node, "node", "write"),
    Route("GET", "/v1/agent/health/service/id/", health_by_id, "service", "read"),
    Route("GET", "/v1/agent/health/service/name/", health_by_name, "service", "read"),
    Route("PUT", "/v1/agent/reload", nothing_to_do, "agent", "write"),
)
