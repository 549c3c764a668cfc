"""A tester's request gets the version that was asked for; what the tester said goes no further. Pure.

Before the route is chosen, what a tester validly asks for is written into a header that no caller can set
(`asked_by`), and routes that match it lead to the version's cluster. It is written

- from the service's header, in the filter chains of networks from which that counts;
- from a cookie that is signed for the service and a time, by a Lua filter (`milkrun.router.override` says how it is
  made). The key is read from its file, by the router's own Envoy only: elsewhere no cookie is good.
Only a version that serves has a route, so one in maintenance is not reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from milkrun.errors import InputRefused
from milkrun.model import ServiceName, VersionName, service_name, version_name
from milkrun.router import override
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.envoy.messages import packed
from milkrun.router.envoy.origins import Origin
from milkrun.router.envoy.secrets import Secrets
from milkrun.router.envoy.signature import PROGRAM
from milkrun.settings.service import TrafficSettings

Services = Mapping[ServiceName, TrafficSettings]
_HEADER = re.compile(r"[A-Za-z0-9-]{1,60}")


def asked_by(service: ServiceName) -> str:
    """The header with the version that a tester of the service gets."""
    return f"x-milkrun-asked-{service_name(service)}"


def versions(traffic: TrafficSettings, state: RoutingState) -> list[VersionName]:
    """Those that may be asked for: where an instance serves, whatever the version's share."""
    if not traffic.override:
        return []
    return sorted(
        version
        for version, servers in state.versions.items()
        if any(server.mode is Mode.SERVE for server in servers.values())
    )


def fits(service: ServiceName, version: VersionName) -> HeaderMatcher:
    """Matches requests of testers who get this version."""
    return HeaderMatcher(name=asked_by(service), string_match={"exact": version_name(version)})


def named_first(services: Services, origin: Origin) -> Iterator[dict[str, object]]:
    """What writes down, before the route is chosen, what testers there ask for by header."""
    mutations: list[dict[str, object]] = []
    for service, traffic in sorted(services.items()):
        if traffic.override:
            mutations.append({"remove": asked_by(service)})
        if service in origin.tests:
            said = {"key": asked_by(service), "value": f"%REQ({_header(traffic)})%"}
            mutations.append({"append": {"header": said, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
    if mutations:
        yield {
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": packed(HeaderMutation(mutations=mutations)),
        }


def signed(services: Services, secrets: Secrets) -> Iterator[dict[str, object]]:
    """The filter that reads signed cookies, and takes them away."""
    names = {
        override.cookie_name(service_name(service)): asked_by(service)
        for service, traffic in sorted(services.items())
        if traffic.override == "cookie"
    }
    if names:
        prefix = override.cookie_name(ServiceName(""))
        given = f"-- key {secrets.override_sign}\nlocal KEY_FILE = {_text(secrets.override_key)}\n"
        given += f"local PREFIX = {_text(prefix)}\nlocal ASKED = {{{_table(names)}}}\n"
        lua = Lua(default_source_code={"inline_string": given + PROGRAM})
        yield {"name": "envoy.filters.http.lua", "typed_config": packed(lua)}


def taken_away(services: Services) -> list[str]:
    """The names of headers that no instance gets."""
    names = {asked_by(service) for service, traffic in services.items() if traffic.override}
    names |= {_header(each).lower() for each in services.values() if each.override.startswith("header:")}
    return sorted(names)


def _header(traffic: TrafficSettings) -> str:
    name = traffic.override.removeprefix("header:")
    if not _HEADER.fullmatch(name):
        raise InputRefused(f"{name[:80]!r} is not the name of a header")
    return name


def _table(names: Mapping[str, str]) -> str:
    return ", ".join(f"[{_text(key)}] = {_text(value)}" for key, value in names.items())


def _text(text: str) -> str:
    """Lua's literal of the text, in which no character means anything."""
    return '"' + "".join(f"\\{byte:03d}" for byte in _bytes(text)) + '"'


def _bytes(text: str) -> Iterable[int]:
    return text.encode("utf-8", "surrogateescape")
