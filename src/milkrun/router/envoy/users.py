"""What a user is known by, who then stays with a version: the hash of that is the user's slot. Pure.

Who has no cookie yet gets a name of Envoy's making before the route is chosen, in a header that only Envoy sees, and as
the cookie with the answer: so the first request goes where all later ones will. Envoy's own way to hand out cookies
works for the choice of a server only, not for that of a cluster (1.40).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec
from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher, RouteAction
from envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2 import Config
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from milkrun.errors import InputRefused
from milkrun.router.envoy.messages import packed
from milkrun.settings.service import TrafficSettings

NEWCOMER = "x-milkrun-newcomer"
_KEPT = "milkrun.newcomer"


class Known(msgspec.Struct, frozen=True):
    """Requests with these headers are known by this, and answered with those headers besides."""

    fits: tuple[HeaderMatcher, ...] = ()
    by: RouteAction.HashPolicy | None = None
    answer: tuple[HeaderValueOption, ...] = ()


def known(traffic: TrafficSettings) -> Iterator[Known]:
    """The ways to know a user, of which the first that fits a request counts; the last one fits each."""
    kind, _, name = traffic.sticky.partition(":")
    match kind:
        case "":
            yield Known()
        case "address":
            yield Known(by=RouteAction.HashPolicy(connection_properties={"source_ip": True}))
        case "header":
            yield Known(by=RouteAction.HashPolicy(header={"header_name": name}))
        case "cookie":
            has = f"(.*; *)?{re.escape(name)}=[^;]+(;.*)?"
            there = HeaderMatcher(name="cookie", string_match={"safe_regex": {"regex": has}})
            yield Known((there,), RouteAction.HashPolicy(cookie={"name": name}))
            said = f"{name}=%FILTER_STATE({_KEPT}:PLAIN)%; Path=/; HttpOnly; SameSite=Lax"
            given = HeaderValueOption(header={"key": "set-cookie", "value": said})
            yield Known((), RouteAction.HashPolicy(header={"header_name": NEWCOMER}), (given,))
        case _:
            raise InputRefused(f"{traffic.sticky!r} is nothing that a user is known by")


def give_cookies(traffics: Iterable[TrafficSettings]) -> bool:
    """Whether a service gives cookies to newcomers."""
    return any(traffic.sticky.startswith("cookie:") for traffic in traffics)


def named_first() -> dict[str, object]:
    """What gives each request a newcomer's name before its route is chosen, whatever the caller says."""
    name = {
        "header": {"key": NEWCOMER, "value": "%UNIQUE_ID%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": packed(HeaderMutation(mutations=[{"append": name}])),
    }


def kept_for_the_answer() -> dict[str, object]:
    """What keeps the name for the answer's cookie, because the instance does not get the header."""
    kept = {
        "object_key": _KEPT,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": f"%REQ({NEWCOMER})%"}},
    }
    return {
        "name": "envoy.filters.http.set_filter_state",
        "typed_config": packed(Config(on_request_headers=[kept])),
    }
