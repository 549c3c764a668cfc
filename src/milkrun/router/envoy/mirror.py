"""Copies of GETs, for a version whose answers nobody sees. Pure.

The version has a second cluster for them, `goat/0.0.2/copies`: what is counted there is none of the version's requests.
- A copy is never worth a user's request: one that comes while COPIES_AT_MOST are under way is not made (per thread of
  Envoy), and one that takes over COPY_WAIT_S is cut. Only GETs, and nothing that becomes another protocol.
- A copy is made once, and reaches the version that is named or nobody: the cluster has no servers of others.
- The instance is told that it is a copy (`x-milkrun-mirror: 1`). A copy is not copied again.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_components_pb2 import LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.route.v3 import route_components_pb2 as parts
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2 import UpstreamCodec
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from milkrun.model import SHARE_SLOTS, ServiceName, VersionName, version_name
from milkrun.router.desired import RoutingState
from milkrun.router.envoy.clusters import HTTP, SPOKEN, cluster_name, lb_endpoint
from milkrun.router.envoy.limits import COPIES_AT_MOST, COPY_WAIT_S, IDLE_S
from milkrun.router.envoy.messages import FROM_US, duration, packed
from milkrun.settings.service import TrafficSettings

MARK = "x-milkrun-mirror"


def copied(traffic: TrafficSettings, state: RoutingState) -> VersionName | None:
    """The version that gets copies, when it has an instance."""
    if not traffic.mirror:
        return None
    version = version_name(traffic.mirror)
    return version if state.versions.get(version) else None


def copies_name(service: ServiceName, version: VersionName) -> str:
    """The name of its second cluster. No version's name has a slash."""
    return f"{cluster_name(service, version)}/copies"


def clusters(service: ServiceName, traffic: TrafficSettings, state: RoutingState) -> Iterator[Cluster]:
    """The cluster for the copies. Nobody probes its servers: the version's own cluster does."""
    version = copied(traffic, state)
    if version is None:
        return
    most = {"value": COPIES_AT_MOST}
    bounds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), most)
    cluster = Cluster(
        name=copies_name(service, version),
        type=Cluster.EDS,
        eds_cluster_config={"eds_config": FROM_US},
        connect_timeout=duration(0.5),
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        ignore_health_on_host_removal=True,
        circuit_breakers={"thresholds": [bounds]},
    )
    said = {"append": {"header": {"key": MARK, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    internal = {"remove": "x-envoy-internal"}  # Envoy says so of what it sends by itself
    marked = HeaderMutation(mutations={"request_mutations": [said, internal]})
    spoken = HttpProtocolOptions(
        explicit_http_config={SPOKEN[traffic.protocol]: {}},
        common_http_protocol_options={
            "idle_timeout": duration(IDLE_S),
            "max_stream_duration": duration(COPY_WAIT_S),
        },
        http_filters=[
            {"name": "envoy.filters.http.header_mutation", "typed_config": packed(marked)},
            {"name": "envoy.filters.http.upstream_codec", "typed_config": packed(UpstreamCodec())},
        ],
    )
    cluster.typed_extension_protocol_options[HTTP].CopyFrom(packed(spoken))
    yield cluster


def endpoints(
    service: ServiceName, traffic: TrafficSettings, state: RoutingState
) -> Iterator[ClusterLoadAssignment]:
    """The version's own instances."""
    version = copied(traffic, state)
    if version is not None:
        own = [lb_endpoint(server, server.mode) for server in state.versions[version].values()]
        yield ClusterLoadAssignment(
            cluster_name=copies_name(service, version), endpoints=[LocalityLbEndpoints(lb_endpoints=own)]
        )


def fits() -> parts.HeaderMatcher:
    """Matches what is no copy itself."""
    return parts.HeaderMatcher(name=MARK, present_match=False)


def policy(
    service: ServiceName, traffic: TrafficSettings, version: VersionName
) -> parts.RouteAction.RequestMirrorPolicy:
    """Requests of a route with this are copied, when their turn comes."""
    share = round(traffic.mirror_percent * SHARE_SLOTS / 100)
    return parts.RouteAction.RequestMirrorPolicy(
        cluster=copies_name(service, version),
        runtime_fraction={"default_value": {"numerator": share, "denominator": "TEN_THOUSAND"}},
        trace_sampled={"value": False},
        disable_shadow_host_suffix_append=True,
    )
