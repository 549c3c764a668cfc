"""One service as Envoy's clusters and endpoints: a cluster a version. Pure.

- priority 0 of a version's cluster are its own servers, priority 1 those of the other versions: they take over
  only when none of its own can (`_ANY`), so a version whose last instance died costs nobody a request. As
  the pool of HAProxy's lanes does.
- a server that drains stays an endpoint, `DRAINING`: its requests can be counted until they are zero.
- Envoy's own panic is off. Ours (I5: under half healthy all serve, but for those in maintenance) is decided in
  desired(), and Envoy's would send requests to instances in maintenance.
- three failed connections in a row take a server out until it accepts again, or for a second; half of a
  cluster at most, so that an instance that breaks on one request empties no pool.
- nothing of a cluster depends on who is in it: a changed cluster is made anew, and forgets what it counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.extensions.load_balancing_policies.least_request.v3.least_request_pb2 import LeastRequest
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from milkrun.errors import InputRefused
from milkrun.model import ServiceName, VersionName, endpoint, instance_id, service_name, version_name
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.envoy.limits import IDLE_S
from milkrun.router.envoy.messages import FROM_US, duration, packed
from milkrun.settings.service import TrafficSettings

_ANY = 1_000_000
"""The overprovisioning factor (in percent) with which one healthy server of 10,000 keeps its priority's traffic."""
_NO_LIMIT = 1_000_000
_REMEMBERED = 65_536
SPOKEN = {"http": "http_protocol_options", "http2": "http2_protocol_options"}
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster_name(service: ServiceName, version: VersionName) -> str:
    """`goat/0.0.1`: the cluster of a service's version."""
    return f"{service_name(service)}/{version_name(version)}"


def of_cluster(name: str) -> tuple[ServiceName, VersionName] | None:
    """The service and the version whose requests it takes; None when it is none of ours, or has copies only."""
    service, slash, version = name.partition("/")
    return (ServiceName(service), VersionName(version)) if slash and "/" not in version else None


def names(state: RoutingState) -> list[VersionName]:
    """The versions that have a cluster: those with servers, and those with a share."""
    return sorted({version for version, servers in state.versions.items() if servers} | state.shares.keys())


def clusters(service: ServiceName, traffic: TrafficSettings, state: RoutingState) -> Iterator[Cluster]:
    """The service's clusters, whose endpoints come by the same stream."""
    for version in names(state):
        cluster = Cluster(
            name=cluster_name(service, version),
            type=Cluster.EDS,
            eds_cluster_config={"eds_config": FROM_US},
            connect_timeout=duration(0.5),
            common_lb_config={"healthy_panic_threshold": {"value": 0}},
            ignore_health_on_host_removal=True,
            health_checks=[_PROBE],
            outlier_detection=_EJECTION,
            circuit_breakers={"thresholds": [_UNBOUNDED, {**_UNBOUNDED, "priority": "HIGH"}]},
        )
        if traffic.protocol != "tcp":
            http = HttpProtocolOptions(
                explicit_http_config={SPOKEN[traffic.protocol]: {}},
                common_http_protocol_options={"idle_timeout": duration(IDLE_S)},
            )
            cluster.typed_extension_protocol_options[HTTP].CopyFrom(packed(http))
        _balanced(cluster, traffic)
        yield cluster


_PROBE = {
    "timeout": duration(0.5),
    "interval": duration(1),
    "no_traffic_interval": duration(1),
    "unhealthy_interval": duration(0.5),
    "unhealthy_edge_interval": duration(0.2),
    "unhealthy_threshold": {"value": 2},
    "healthy_threshold": {"value": 1},
    "tcp_health_check": {},
}
_EJECTION = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": {"value": 3},
    "enforcing_consecutive_local_origin_failure": {"value": 100},
    "enforcing_consecutive_5xx": {"value": 0},
    "enforcing_consecutive_gateway_failure": {"value": 0},
    "enforcing_success_rate": {"value": 0},
    "enforcing_local_origin_success_rate": {"value": 0},
    "interval": duration(1),
    "base_ejection_time": duration(1),
    "max_ejection_time": duration(1),
    "max_ejection_percent": {"value": 50},
}
_UNBOUNDED = {
    name: {"value": _NO_LIMIT}
    for name in ("max_connections", "max_pending_requests", "max_requests", "max_retries")
}


def _balanced(cluster: Cluster, traffic: TrafficSettings) -> None:
    window = {"slow_start_window": duration(traffic.slow_start_s)}
    slowly = {"slow_start_config": window} if traffic.slow_start_s else {}
    match traffic.balance:
        case "round-robin":
            cluster.lb_policy = Cluster.ROUND_ROBIN
            cluster.round_robin_lb_config.CopyFrom(Cluster.RoundRobinLbConfig(**slowly))
        case "two-choices":
            cluster.lb_policy = Cluster.LEAST_REQUEST
            cluster.least_request_lb_config.CopyFrom(
                Cluster.LeastRequestLbConfig(choice_count={"value": 2}, **slowly)
            )
        case "least-connections":
            fewest = LeastRequest(selection_method=LeastRequest.FULL_SCAN, **slowly)
            policy = cluster.load_balancing_policy.policies.add().typed_extension_config
            policy.name = "envoy.load_balancing_policies.least_request"
            policy.typed_config.CopyFrom(packed(fewest))


def endpoints(service: ServiceName, state: RoutingState) -> Iterator[ClusterLoadAssignment]:
    """The endpoints of each of the service's clusters."""
    for version in names(state):
        own = [lb_endpoint(server, server.mode) for server in _servers(state, version)]
        yield ClusterLoadAssignment(
            cluster_name=cluster_name(service, version),
            endpoints=[
                LocalityLbEndpoints(priority=0, lb_endpoints=own),
                LocalityLbEndpoints(priority=1, lb_endpoints=_spare(state, version)),
            ],
            policy={"overprovisioning_factor": {"value": _ANY}},
        )


def _spare(state: RoutingState, version: VersionName) -> list[LbEndpoint]:
    """The servers of the other versions. One without a share lends none: a canary at zero gets no request."""
    return [
        lb_endpoint(server, server.mode if other in state.shares else Mode.DRAIN)
        for other in names(state)
        if other != version
        for server in _servers(state, other)
    ]


def _servers(state: RoutingState, version: VersionName) -> list[Server]:
    """Those that take requests first: of two with one address, Envoy takes the first."""
    return sorted(state.versions.get(version, {}).values(), key=lambda server: server.mode is Mode.DRAIN)


@lru_cache(_REMEMBERED)
def lb_endpoint(server: Server, mode: Mode) -> LbEndpoint:
    """The server as an endpoint. Raises InputRefused for an address or a weight that is none."""
    if not 1 <= server.weight <= 256:
        raise InputRefused(f"{server.weight} is not a server weight between 1 and 256")
    host, port = endpoint(server.address, server.port)
    return LbEndpoint(
        endpoint={
            "address": {"socket_address": {"address": host, "port_value": port}},
            "hostname": instance_id(server.id),
        },
        health_status="HEALTHY" if mode is Mode.SERVE else "DRAINING",
        load_balancing_weight={"value": server.weight},
    )
