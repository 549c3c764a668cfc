"""A front's routes as Envoy has them, each split over the versions of its service. Pure.

One of our routes becomes three, of which the first that fits takes a request:
- an upgrade (WebSocket), which may be silent for an hour;
- GET and HEAD, which are sent again also when an instance took them and did not answer;
- all else, which is sent again only when it surely never arrived.
A path that goes up (`/../`, in whatever spelling) is refused where paths decide: who reads it later may read another
one than was routed. A path is a prefix of whole segments, and no text of a route but its path, escaped, is a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from envoy.config.route.v3 import route_components_pb2 as parts
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import (
    PreviousPrioritiesConfig,
)

from milkrun.errors import InputRefused
from milkrun.model import SHARE_SLOTS, ServiceName
from milkrun.router.desired import RoutingState
from milkrun.router.envoy import mirror, testers
from milkrun.router.envoy.clusters import cluster_name
from milkrun.router.envoy.limits import TRIES, TUNNEL_S
from milkrun.router.envoy.messages import duration, packed
from milkrun.router.envoy.users import known
from milkrun.router.front import Front, Route
from milkrun.router.placement import totals
from milkrun.settings.service import TrafficSettings

_INSTEAD = "OVERWRITE_IF_EXISTS_OR_ADD"
IDEMPOTENT = ("GET", "HEAD")
_BETWEEN = r"([/\\]|%2f|%5c)"
_GOES_UP = rf"(?i)(.*{_BETWEEN})?(\.|%2e){{1,2}}(;[^/\\]*)?({_BETWEEN}.*)?"
_NEVER_ARRIVED = "connect-failure,refused-stream,reset-before-request"
_UNANSWERED = "connect-failure,refused-stream,reset"


def routes(front: Front, states: Mapping[ServiceName, RoutingState]) -> RouteConfiguration:
    """All routes of the front, in its order. A service without shares answers 503, no route 404."""
    host = parts.VirtualHost(name=front.name, domains=["*"])
    if any(route.path != "/" for route in front.routes):
        up = parts.RouteMatch(safe_regex={"regex": _GOES_UP})
        host.routes.append(_said(up, 400, "the path goes up\n"))
    for route in front.routes:
        state = states.get(route.service, RoutingState())
        host.routes.extend(_routed(route, front.services[route.service], state))
    host.routes.append(_said(parts.RouteMatch(prefix=""), 404, "no route fits this request\n"))
    return RouteConfiguration(name=front.name, virtual_hosts=[host])


def _routed(route: Route, traffic: TrafficSettings, state: RoutingState) -> Iterator[parts.Route]:
    copies = [mirror.policy(route.service, traffic, to)] if (to := mirror.copied(traffic, state)) else []
    for version in testers.versions(traffic, state):
        action = parts.RouteAction(cluster=cluster_name(route.service, version))
        asked = (testers.fits(route.service, version),)
        yield from _sent(route, asked, _seen(route, traffic, action), copies)
    if not state.shares:
        said = f"no instance of {route.service} is in service\n"
        yield _said(_match(route, route.methods), 503, said)
        return
    for user in known(traffic):
        action = parts.RouteAction(weighted_clusters={"clusters": weighted(route.service, state)})
        if user.by:
            action.weighted_clusters.use_hash_policy.value = True
            action.hash_policy.append(user.by)
        split = _seen(route, traffic, action)
        split.response_headers_to_add.extend(user.answer)
        yield from _sent(route, user.fits, split, copies)


def _sent(
    route: Route,
    fits: Sequence[parts.HeaderMatcher],
    to: parts.Route,
    copies: Sequence[parts.RouteAction.RequestMirrorPolicy],
) -> Iterator[parts.Route]:
    """The requests of the route that fit go there, each sent again when that does no harm."""
    if not route.methods or "GET" in route.methods:
        upgrade = parts.HeaderMatcher(name="upgrade", present_match=True)
        tunnel = _tried(_match(route, ("GET",), upgrade, *fits), to, _UNANSWERED)
        tunnel.route.idle_timeout.CopyFrom(duration(max(TUNNEL_S, to.route.idle_timeout.ToSeconds())))
        yield tunnel
        if copies:
            copied = _tried(_match(route, ("GET",), mirror.fits(), *fits), to, _UNANSWERED)
            copied.route.request_mirror_policies.extend(copies)
            yield copied
    if safe := tuple(method for method in IDEMPOTENT if not route.methods or method in route.methods):
        yield _tried(_match(route, safe, *fits), to, _UNANSWERED)
    others = tuple(method for method in route.methods if method not in IDEMPOTENT)
    if others or not route.methods:
        yield _tried(_match(route, others, *fits), to, _NEVER_ARRIVED)


def _match(route: Route, methods: Sequence[str], *more: parts.HeaderMatcher) -> parts.RouteMatch:
    headers = [*more]
    if route.host:
        pattern = f"(?i){re.escape(route.host)}\\.?(:[0-9]+)?"
        headers.append(
            parts.HeaderMatcher(name=":authority", string_match={"safe_regex": {"regex": pattern}})
        )
    if methods:
        headers.append(
            parts.HeaderMatcher(name=":method", string_match={"safe_regex": {"regex": "|".join(methods)}})
        )
    headers += [
        parts.HeaderMatcher(name=name, string_match={"exact": value}) for name, value in route.headers
    ]
    if route.path == "/":
        return parts.RouteMatch(prefix="", headers=headers)
    return parts.RouteMatch(path_separated_prefix=route.path, headers=headers)


def _seen(route: Route, traffic: TrafficSettings, action: parts.RouteAction) -> parts.Route:
    """A route with this action, whose instances see the path that they should."""
    action.timeout.CopyFrom(duration(0))  # a download may take as long as it moves
    action.idle_timeout.CopyFrom(duration(traffic.idle_limit_s))
    base = traffic.path
    if route.path == "/" or not route.strip:
        if base:
            action.prefix_rewrite = base + (route.path if route.path != "/" else "")
        return parts.Route(route=action)
    action.regex_rewrite.pattern.regex = f"^{re.escape(route.path)}/?"
    action.regex_rewrite.substitution = f"{base}/"
    told = {"header": {"key": "x-forwarded-prefix", "value": route.path}, "append_action": _INSTEAD}
    return parts.Route(route=action, request_headers_to_add=[told])


def _tried(match: parts.RouteMatch, to: parts.Route, retry_on: str) -> parts.Route:
    found = parts.Route(match=match)
    found.MergeFrom(to)
    found.route.retry_policy.CopyFrom(_again(retry_on))
    return found


def weighted(service: ServiceName, state: RoutingState) -> list[parts.WeightedCluster.ClusterWeight]:
    """The versions' clusters with their shares: together all slots, or none at all.

    With a placement they are its spans, in its order: Envoy goes through them by adding, so the slot of a user falls
    into the span that has it. A version may be there more than once.
    """
    if state.shares and (sum(state.shares.values()) != SHARE_SLOTS or min(state.shares.values()) < 1):
        raise InputRefused(f"the shares of {service} are {dict(state.shares)}: not {SHARE_SLOTS} slots")
    spans = [(span.version, span.size) for span in state.placement] or sorted(state.shares.items())
    if state.placement and totals(state.placement) != state.shares:
        raise InputRefused(f"the placement of {service} has other shares than it should")
    return [
        parts.WeightedCluster.ClusterWeight(name=cluster_name(service, version), weight={"value": size})
        for version, size in spans
    ]


def _again(retry_on: str) -> parts.RetryPolicy:
    """Twice among a version's own servers, another one each time, then also among those of other versions."""
    return parts.RetryPolicy(
        retry_on=retry_on,
        num_retries={"value": TRIES},
        retry_host_predicate=[
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": packed(PreviousHostsPredicate()),
            }
        ],
        host_selection_retry_max_attempts=5,
        retry_priority={
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": packed(PreviousPrioritiesConfig(update_frequency=2)),
        },
        retry_back_off={"base_interval": duration(0.005), "max_interval": duration(0.1)},
    )


def _said(match: parts.RouteMatch, status: int, text: str) -> parts.Route:
    return parts.Route(match=match, direct_response={"status": status, "body": {"inline_string": text}})
