"""What there is to say of a cluster of one: coordinates, Raft, the mesh and the UI's summaries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from milkrun.registry import topics, views
from milkrun.registry.access import sight
from milkrun.registry.access.authority import ALL, Authority
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.filters import shapes
from milkrun.registry.http import filtering
from milkrun.registry.http.agent import lan_member
from milkrun.registry.http.asking import authority, require
from milkrun.registry.http.health import named, topic_answer
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.http.status import RPC_PORT
from milkrun.registry.nouns import DATACENTER, OWN_SERVICE
from milkrun.registry.refusal import Refused


def always(value: Any, *, vetted: bool = True) -> Callable[[Engine, Request], Awaitable[Reply]]:
    """The handler of a list that nothing can be put into here; `vetted`: not for a token that is none."""

    async def answer(engine: Engine, request: Request) -> Reply:
        if vetted:
            authority(engine, request)
        return Reply.json(value, index=engine.machine.ledger.index)

    return answer


async def coordinate(engine: Engine, request: Request) -> Reply:
    """A node's coordinates: of one server there are none."""
    require(engine, request, Resource.NODE, named(request, "node name"), Level.READ)
    return Reply(404, index=engine.machine.ledger.index)


async def mesh_gateways(engine: Engine, request: Request) -> Reply:
    """What the gateways of a service mesh route: there is none here."""
    name = named(request, "service name")
    return await topic_answer(engine, request, topics.service(name), list, shapes.HEALTH_ENTRY)


async def raft(engine: Engine, request: Request) -> Reply:
    """The servers: this one leads."""
    require(engine, request, Resource.OPERATOR, "", Level.READ)
    return Reply.json(
        {
            "Servers": [
                {
                    "ID": engine.own.id,
                    "Node": engine.own.node,
                    "Address": f"{engine.own.address}:{RPC_PORT}",
                    "Leader": True,
                    "ProtocolVersion": "3",
                    "Voter": True,
                }
            ],
            "Index": 0,
        }
    )


async def usage(engine: Engine, request: Request) -> Reply:
    """How much there is of what, as newer Consuls count it: the registry itself is nobody's bill."""
    require(engine, request, Resource.OPERATOR, "", Level.READ)
    catalog = engine.machine.catalog
    instances = [each for all_ in catalog.services.values() for each in all_.values()]
    own = sum(each.service == OWN_SERVICE for each in instances)
    counted = {
        "Nodes": len(catalog.nodes),
        "Services": len({each.service for each in instances}),
        "ServiceInstances": len(instances),
        "ConnectServiceInstances": dict.fromkeys(_MESH_KINDS, 0),
        "BillableServiceInstances": len(instances) - own,
    }
    index = engine.machine.ledger.index
    return Reply.json(
        {
            "Usage": {DATACENTER: counted},
            "Index": index,
            "LastContact": 0,
            "KnownLeader": True,
            "ConsistencyLevel": "leader",
            "NotModified": False,
            "Backend": 0,
            "ResultsFilteredByACLs": False,
        },
        index=index,
    )


async def transfer_leader(engine: Engine, request: Request) -> Reply:
    """Refused: there is no other server that could lead."""
    require(engine, request, Resource.OPERATOR, "", Level.WRITE)
    raise Refused(400, "cannot find peer: this registry is a cluster of one")


async def ui_services(engine: Engine, request: Request) -> Reply:
    """Each service with its tags, its nodes and how many of its checks stand how."""
    test = filtering.test_of(request, shapes.HEALTH_ENTRY)

    def view(who: Authority = ALL) -> list[dict[str, Any]]:
        return views.summaries(
            engine.machine.catalog, lambda found: filtering.kept(sight.seen(who, found), test)
        )

    def narrow(who: Authority, whole: list[dict[str, Any]]) -> list[dict[str, Any]]:
        seen = view(who)
        return whole if seen == whole else seen

    return await topic_answer(engine, request, topics.CHECKS, view, narrow=narrow)


async def ui_nodes(engine: Engine, request: Request) -> Reply:
    """Each node with its services and checks."""

    def view() -> list[dict[str, Any]]:
        catalog = engine.machine.catalog
        return [views.whole_node(catalog, name) for name in sorted(catalog.nodes)]

    return await topic_answer(engine, request, topics.CHECKS, view, narrow=sight.of_whole_nodes)


async def ui_node(engine: Engine, request: Request) -> Reply:
    """One node with its services and checks."""
    name = named(request, "node name")
    require(engine, request, Resource.NODE, name, Level.READ)
    if name not in engine.machine.catalog.nodes:
        raise Refused(404, "")
    return await topic_answer(
        engine,
        request,
        topics.node(name),
        lambda: views.whole_node(engine.machine.catalog, name),
        narrow=sight.of_whole_node,
    )


async def join(engine: Engine, request: Request) -> Reply:
    """Refused: this registry has no cluster to join."""
    require(engine, request, Resource.AGENT, engine.own.node, Level.WRITE)
    raise Refused(
        400,
        f"This registry is a cluster of one and cannot join {request.rest!r}: for more servers run Consul, "
        "and give its address to the same components",
    )


async def leave(engine: Engine, request: Request) -> Reply:
    """The registry ends in order, after this answer; what watches over it may start it again."""
    require(engine, request, Resource.AGENT, engine.own.node, Level.WRITE)
    if not engine.left.done():
        engine.left.set_result(None)
    return Reply()


async def force_leave(engine: Engine, request: Request) -> Reply:
    """Nothing, for this node; there is no other one."""
    require(engine, request, Resource.OPERATOR, "", Level.WRITE)
    if request.rest != lan_member(engine)["Name"]:
        raise Refused(500, f"agent: No node found with name '{request.rest}'")
    return Reply()


async def remove_peer(engine: Engine, request: Request) -> Reply:
    """Refused: the one server is not removed, and there is no other."""
    require(engine, request, Resource.OPERATOR, "", Level.WRITE)
    for name in ("address", "id"):
        if value := request.one(name):
            raise Refused(500, f'{name} "{value}" was not found in the Raft configuration')
    raise Refused(
        400,
        "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
    )


async def keyring(engine: Engine, request: Request) -> Reply:
    """Refused: nothing is gossiped, so no key encrypts it."""
    require(engine, request, Resource.KEYRING, "", Level.READ)
    why = f"* {DATACENTER} (LAN) error: 1/1 nodes reported failure"
    raise Refused(
        500,
        f"2 errors occurred:\n\t{why}\n\t* {engine.own.node}: Keyring is empty (encryption not enabled)\n\n",
    )


async def monitor(engine: Engine, request: Request) -> Reply:
    """Refused: the log is a file, which `milkrun logs` follows."""
    require(engine, request, Resource.AGENT, engine.own.node, Level.READ)
    level = (request.one("loglevel") or "info").lower()
    if level not in _LOG_LEVELS:
        raise Refused(400, f"Bad request: Unknown log level: {level[:40]}")
    raise Refused(400, "This registry does not send its log over HTTP: `milkrun logs registry -f` follows it")


_MESH_KINDS = ("connect-native", "connect-proxy", "ingress-gateway", "mesh-gateway", "terminating-gateway")
_LOG_LEVELS = ("trace", "debug", "info", "warn", "err")
_NO_ROOTS = {"ActiveRootID": "", "TrustDomain": "", "Roots": []}

ROUTES = (
    Route("GET", "/v1/coordinate/datacenters", always([], vetted=False), "none", "none"),
    Route("GET", "/v1/coordinate/nodes", always([]), "node", "read"),
    Route("GET", "/v1/coordinate/node/", coordinate, "node", "read"),
    Route("GET", "/v1/operator/raft/configuration", raft, "operator", "read"),
    Route("GET", "/v1/operator/usage", usage, "operator", "read"),
    Route("POST", "/v1/operator/raft/transfer-leader", transfer_leader, "operator", "write"),
    Route("GET", "/v1/internal/ui/services", ui_services, "service+node", "read"),
    Route("GET", "/v1/internal/ui/nodes", ui_nodes, "node", "read"),
    Route("GET", "/v1/internal/ui/node/", ui_node, "node", "read"),
    Route("GET", "/v1/connect/ca/roots", always(_NO_ROOTS, vetted=False), "none", "none"),
    Route("GET", "/v1/agent/connect/ca/roots", always(_NO_ROOTS, vetted=False), "none", "none"),
    Route("GET", "/v1/connect/intentions", always([]), "service", "read"),
    Route("GET", "/v1/query", always([]), "query", "read"),
    Route("GET", "/v1/health/ingress/", mesh_gateways, "service", "read"),
    Route("GET", "/v1/catalog/gateway-services/", mesh_gateways, "service", "read"),
    Route("DELETE", "/v1/operator/raft/peer", remove_peer, "operator", "write"),
    Route("GET", "/v1/operator/keyring", keyring, "keyring", "read"),
    Route("GET", "/v1/agent/monitor", monitor, "agent", "read"),
    Route("PUT", "/v1/agent/join/", join, "agent", "write"),
    Route("PUT", "/v1/agent/leave", leave, "agent", "write"),
    Route("PUT", "/v1/agent/force-leave/", force_leave, "operator", "write"),
)
