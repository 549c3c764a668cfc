"""All that Envoy should have, as the resources that it asks for: clusters, endpoints, listeners, routes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum

import msgspec
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf.message import Message

from milkrun.model import ServiceName
from milkrun.router.desired import RoutingState
from milkrun.router.envoy import mirror
from milkrun.router.envoy.clusters import clusters, endpoints
from milkrun.router.envoy.listeners import entrance, page, tcp_service
from milkrun.router.envoy.routes import routes
from milkrun.router.envoy.secrets import NONE, Secrets
from milkrun.router.envoy.strangers import Asked, front_for
from milkrun.router.front import Front


class Kind(Enum):
    """The kinds of resources by their type, in the order in which nothing points to what is not there yet.

    Source: Envoy's xDS protocol, "Eventual consistency considerations".
    """

    CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENERS = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

    @property
    def whole(self) -> bool:
        """Whether an answer has to have all of the kind: what is missing in it is taken away."""
        return self in (Kind.CLUSTERS, Kind.LISTENERS)


Resources = Mapping[str, bytes]
"""Messages as bytes, the same bytes for the same content, by name."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What Envoy should have now. `version` is what Envoy calls it."""

    version: str
    resources: dict[Kind, dict[str, bytes]]


def snapshot(
    version: str, front: Front, states: Mapping[ServiceName, RoutingState], secrets: Secrets = NONE
) -> Snapshot:
    """The resources with which the router's own Envoy stands as the front says, and serves the services as `states`
    say. Raises InputRefused for a name, an address or a share that is none.
    """
    return _snapshot(version, front, states, lambda state: [entrance(front, state, secrets), page(front)])


def snapshot_for(
    asked: Asked, version: str, front: Front, states: Mapping[ServiceName, RoutingState]
) -> Snapshot:
    """The resources for another Envoy. Raises NotFound and InputRefused."""
    theirs = front_for(front, asked)
    return _snapshot(version, theirs, states, lambda state: [entrance(theirs, state)] if asked.listen else [])


def _snapshot(
    version: str,
    front: Front,
    states: Mapping[ServiceName, RoutingState],
    listeners: Callable[[Mapping[ServiceName, RoutingState]], list[Listener]],
) -> Snapshot:
    state = {service: states.get(service, RoutingState()) for service in front.services}
    found: dict[Kind, dict[str, bytes]] = {
        Kind.CLUSTERS: _named(
            (each.name, each)
            for service, traffic in front.services.items()
            for made in (clusters, mirror.clusters)
            for each in made(service, traffic, state[service])
        ),
        Kind.ENDPOINTS: _named(
            (each.cluster_name, each)
            for service, traffic in front.services.items()
            for each in (
                *endpoints(service, state[service]),
                *mirror.endpoints(service, traffic, state[service]),
            )
        ),
        Kind.LISTENERS: _named((each.name, each) for each in listeners(state)),
        Kind.ROUTES: {},
    }
    if tcp_service(front) is None:
        found[Kind.ROUTES] = _named([(front.name, routes(front, state))])
    return Snapshot(version=version, resources=found)


def _named(messages: Iterable[tuple[str, Message]]) -> dict[str, bytes]:
    return {name: message.SerializeToString(deterministic=True) for name, message in messages}
