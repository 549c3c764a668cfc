"""What Envoy listens on: the front's address, and its page for people. Pure.

- the page at the front's `stats` address is read-only: of the admin's paths it shows two, by GET.
- with certificates it listens by TLS alone, with files that Envoy reads itself (`secrets.py`).
- nothing of a request is changed but what HAProxy changes as well: what a caller says of who called *it* is taken
  away, in whatever spelling an instance may read it, and what we saw is said. Callers in the front's `trust` are
  believed, and what we saw is added. A sidecar's callers are the host's own
  programs: nothing is taken away, nothing said. An `X-Request-Id` stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3 import route_components_pb2 as parts
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as http
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from google.protobuf.message import Message

from milkrun.errors import InputRefused
from milkrun.model import ServiceName
from milkrun.router.desired import RoutingState
from milkrun.router.envoy import testers, users
from milkrun.router.envoy.limits import TUNNEL_S
from milkrun.router.envoy.messages import FROM_US, duration, packed
from milkrun.router.envoy.origins import Origin, origins
from milkrun.router.envoy.routes import weighted
from milkrun.router.envoy.secrets import NONE, Secrets
from milkrun.router.front import Front

ADMIN_CLUSTER = "admin"
NOWHERE = "nowhere"
"""The name of no cluster: connections to it are closed."""
_SAID_OF_CALLERS = "forwarded|x[^a-z0-9]forwarded([^a-z0-9].*)?|x[^a-z0-9]real[^a-z0-9]ip"
_OURS = "x[^a-z0-9]milkrun([^a-z0-9].*)?"
_ENVOYS = "x-envoy-.*"
_INSTEAD = "OVERWRITE_IF_EXISTS_OR_ADD"
PAGES = {"/monitor": "/clusters", "/metrics": "/stats/prometheus"}


def entrance(front: Front, states: Mapping[ServiceName, RoutingState], secrets: Secrets = NONE) -> Listener:
    """Where requests come in. Raises InputRefused where they should come by TLS, and there is no certificate."""
    tcp = tcp_service(front)
    if tcp is not None:
        chains = [FilterChain(filters=[_tcp(tcp, front, states.get(tcp, RoutingState()))])]
    else:
        chains = [
            FilterChain(
                filter_chain_match={"source_prefix_ranges": networks} if networks else None,
                filters=[_http(front, origin, secrets)],
            )
            for origin, networks in origins(front).items()
        ]
    if front.certificates:
        for chain in chains:
            chain.transport_socket.CopyFrom(_tls(secrets, http=tcp is None))
    return _listener(front.name, front.listen, chains)


def _tls(secrets: Secrets, *, http: bool) -> TransportSocket:
    if not secrets.certificates:
        raise InputRefused("there is no certificate to listen with, and nothing is served in clear instead")
    context = DownstreamTlsContext(
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificates": [
                {"certificate_chain": {"filename": path}, "private_key": {"filename": path}}
                for path in secrets.certificates
            ],
            "alpn_protocols": ["h2", "http/1.1"] if http else [],
        }
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def page(front: Front) -> Listener:
    """The page for people."""
    return _listener(f"{front.name}.stats", front.stats, [FilterChain(filters=[_page(front)])])


def tcp_service(front: Front) -> ServiceName | None:
    """The service that takes every connection, when it does not speak HTTP."""
    if front.routes and front.routes[0].everything:
        service = front.routes[0].service
        return service if front.services[service].protocol == "tcp" else None
    return None


def _listener(name: str, place: tuple[str, int], chains: list[FilterChain]) -> Listener:
    host, port = place
    return Listener(
        name=name,
        address={"socket_address": {"address": host, "port_value": port}},
        filter_chains=chains,
    )


def _http(front: Front, origin: Origin, secrets: Secrets) -> Filter:
    manager = _manager(front.name)
    manager.rds.route_config_name = front.name
    manager.rds.config_source.CopyFrom(FROM_US)
    manager.upgrade_configs.add(upgrade_type="websocket")
    if origin.trusted or front.local:
        # Else Envoy itself would say how the caller came, and take away whose certificate the caller had.
        manager.xff_num_trusted_hops = 1
        manager.forward_client_cert_details = "ALWAYS_FORWARD_ONLY"
    router = manager.http_filters.pop()  # it stays the last one
    for early in testers.named_first(front.services, origin):
        manager.early_header_mutation_extensions.add(**early)
    for reader in testers.signed(front.services, secrets):
        manager.http_filters.add(**reader)
    if users.give_cookies(front.services.values()):
        manager.early_header_mutation_extensions.add(**users.named_first())
        manager.http_filters.add(**users.kept_for_the_answer())
    callers = HeaderMutation(mutations={"request_mutations": _callers(front, origin)})
    manager.http_filters.add(name="envoy.filters.http.header_mutation", typed_config=packed(callers))
    manager.http_filters.append(router)
    return _filter("envoy.filters.network.http_connection_manager", manager)


def _callers(front: Front, origin: Origin) -> list[dict[str, object]]:
    taken = [_ENVOYS]
    if front.local:
        taken.append(users.NEWCOMER)
    else:
        taken += [_OURS] if origin.trusted else [_SAID_OF_CALLERS, _OURS]
    taken += map(re.escape, testers.taken_away(front.services))
    found: list[dict[str, object]] = [
        {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": pattern}}}} for pattern in taken
    ]
    if front.local:
        return found
    caller = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
    how = "https" if front.certificates else "http"
    return [
        *found,
        _said("x-forwarded-for", caller, "APPEND_IF_EXISTS_OR_ADD" if origin.trusted else _INSTEAD),
        _said("x-forwarded-proto", how, "ADD_IF_ABSENT" if origin.trusted else _INSTEAD),
    ]


def _said(key: str, value: str, how: str) -> dict[str, object]:
    return {"append": {"header": {"key": key, "value": value}, "append_action": how}}


def _manager(name: str) -> http.HttpConnectionManager:
    router = Router(suppress_envoy_headers=True)
    return http.HttpConnectionManager(
        stat_prefix=name,
        codec_type="AUTO",
        use_remote_address={"value": True},
        internal_address_config={},
        skip_xff_append=True,  # Envoy would give a caller on loopback another address of the host
        generate_request_id={"value": False},
        preserve_external_request_id=True,
        server_header_transformation="PASS_THROUGH",
        http_protocol_options={"accept_http_10": True},
        common_http_protocol_options={"idle_timeout": duration(30)},
        request_headers_timeout=duration(10),
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": packed(router)}],
    )


def _tcp(service: ServiceName, front: Front, state: RoutingState) -> Filter:
    silent_s = max(TUNNEL_S, front.services[service].idle_limit_s)
    proxy = TcpProxy(stat_prefix=service, idle_timeout=duration(silent_s), max_connect_attempts={"value": 10})
    for part in weighted(service, state):
        proxy.weighted_clusters.clusters.add(name=part.name, weight=part.weight.value)
    if not state.shares:
        proxy.cluster = NOWHERE
    return _filter("envoy.filters.network.tcp_proxy", proxy)


def _page(front: Front) -> Filter:
    read = parts.HeaderMatcher(name=":method", string_match={"exact": "GET"})
    host = parts.VirtualHost(name=front.name, domains=["*"])
    host.routes.add(match={"path": "/", "headers": [read]}, redirect={"path_redirect": "/monitor"})
    for page, admin in PAGES.items():
        action = parts.RouteAction(cluster=ADMIN_CLUSTER, regex_rewrite=_to(admin))
        host.routes.add(match={"path": page, "headers": [read]}, route=action)
    manager = _manager(f"{front.name}.stats")
    manager.route_config.CopyFrom(RouteConfiguration(name="page", virtual_hosts=[host]))
    return _filter("envoy.filters.network.http_connection_manager", manager)


def _to(path: str) -> dict[str, object]:
    """The admin gets this path and no query of the caller's."""
    return {"pattern": {"regex": "^.*$"}, "substitution": path}


def _filter(name: str, message: Message) -> Filter:
    return Filter(name=name, typed_config=packed(message))
