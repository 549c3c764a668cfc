"""Which lane takes a request: the one that a tester asks for, the one of who asks, or one at random. Pure.

- By the map, a slot of 10,000 is a lane's. The slot is a random number, or the hash of what is the same in all of a
  user's requests. XXH32 spreads evenly also what differs little; its seed is the service's name, so that not the same
  users are every service's canaries.
- Who comes without the cookie gets one, with the slot that this first request had already: so the user stays.
- A tester asks for a version by a header, from the networks that the service names, or by a cookie that is signed for
  this service until a certain time. What does not fit says nothing: the request is like any other. The map of versions
  has those that serve, so one in maintenance is not reached.
- What a tester said is taken away in the lane, before an instance (and its log) sees it.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping

from milkrun.model import ServiceName, VersionName
from milkrun.router import override
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.haproxy import encode, mirror
from milkrun.settings.service import TrafficSettings

KEY_MAP = "override.map"
"""The key that override cookies are signed with: in a map, so that it is not in the configuration file."""


def map_name(service: ServiceName) -> str:
    """The map of slots; the file's name is also the map's on the socket."""
    return f"{service}.map"


def versions_name(service: ServiceName) -> str:
    """The map of the versions that may be asked for by name."""
    return f"{service}.versions.map"


def rules(service: ServiceName, traffic: TrafficSettings, fits: str = "") -> Iterator[str]:
    """What is found out of a request that `fits`, before its backend is chosen."""
    if traffic.override == "cookie":
        yield from _signed(service, fits)
    elif traffic.override:
        name = encode.header(traffic.override.removeprefix("header:"))
        near = f"{{ src {' '.join(map(encode.network, traffic.override_from))} }}"
        asked = f"req.hdr({name}),map_str({versions_name(service)})"
        yield f"  http-request set-var(txn.forced) {asked}{_if(fits, near)}"
    yield from mirror.rules(service, traffic, fits)
    if traffic.sticky.startswith("cookie:"):
        yield from _remembered(encode.cookie(traffic.sticky.removeprefix("cookie:")), fits)


def backends(service: ServiceName, traffic: TrafficSettings, fits: str = "") -> Iterator[str]:
    """The lane that a request which `fits` goes to; the last line takes all of them."""
    if traffic.override:
        yield f"  use_backend %[var(txn.forced)]{_if(fits, '{ var(txn.forced) -m found }')}"
    lane = f"map_int({map_name(service)},{service}.none)"
    who = user(service, traffic)
    if traffic.sticky.startswith("header:"):
        name = encode.header(traffic.sticky.removeprefix("header:"))
        yield f"  use_backend %[{who},{lane}]{_if(fits, f'{{ req.fhdr({name}) -m len gt 0 }}')}"
        who = "rand(10000)"
    yield f"  use_backend %[{who},{lane}]{_if(fits)}"


def user(service: ServiceName, traffic: TrafficSettings) -> str:
    """The slot of a request, as HAProxy's expression: 0 to 9999."""
    kind, _, name = traffic.sticky.partition(":")
    match kind:
        case "cookie":
            same = "var(txn.user)"
        case "header":
            same = f"req.fhdr({encode.header(name)})"
        case "address":
            same = "src"
        case _:
            return "rand(10000)"
    seed = zlib.crc32(encode.service(service).encode()) >> 1
    return f"{same},xxh32({seed}),mod(10000)"


def stripped(service: ServiceName, traffic: TrafficSettings) -> Iterator[str]:
    """Nothing of what a tester says goes on to an instance."""
    if traffic.override == "cookie":
        name = override.cookie_name(encode.service(service))
        given = f"{{ req.cook({name}) -m found }}"
        yield f'  http-request replace-header cookie "^(.*); *{name}=[^;]*(.*)" "\\1\\2" if {given}'
        yield f'  http-request replace-header cookie "^ *{name}=[^;]*;? *(.*)" "\\1" if {given}'
        # Nobody needs it twice: then all of them go.
        yield f"  http-request del-header cookie if {given}"
        yield "  http-request del-header cookie if { req.fhdr(cookie) -m len 0 }"
    elif traffic.override:
        yield f"  http-request del-header {encode.header(traffic.override.removeprefix('header:'))}"


def by_name(traffic: TrafficSettings) -> bool:
    """Whether requests are sent to a version by its name, so that the map of versions is needed."""
    return bool(traffic.override)


def needs_key(traffics: Iterable[TrafficSettings]) -> bool:
    """Whether a service takes override cookies."""
    return any(traffic.override == "cookie" for traffic in traffics)


def files(
    services: Mapping[ServiceName, TrafficSettings],
    states: Mapping[ServiceName, RoutingState],
    lanes: Mapping[ServiceName, Mapping[VersionName, int]],
    key: bytes,
) -> dict[str, str]:
    """The texts of all that HAProxy reads for this besides the maps of slots, by file name. Without a key no cookie is
    good.
    """
    found = {}
    for service, traffic in services.items():
        if by_name(traffic):
            asked = versions(states.get(service, RoutingState()), lanes.get(service, {}), service)
            found[versions_name(service)] = "".join(f"{name} {lane}\n" for name, lane in asked.items())
    if mirror.needed(services.values()):
        found[mirror.FILE] = mirror.PROGRAM
    if needs_key(services.values()):
        found[KEY_MAP] = f"key {key_text(key)}\n" if key else ""
    return found


def key_text(key: bytes) -> str:
    """The key as HAProxy takes it."""
    return base64.b64encode(key).decode()


def versions(state: RoutingState, lanes: Mapping[VersionName, int], service: ServiceName) -> dict[str, str]:
    """The lane of each version that may be asked for: those that serve, while the service does."""
    if not state.shares:
        return {}
    return {
        encode.version(version): encode.lane(service, lanes[version])
        for version, servers in state.versions.items()
        if any(server.mode is Mode.SERVE for server in servers.values())
    }


def _remembered(name: str, fits: str) -> Iterator[str]:
    known, fresh = "{ var(txn.user) -m found }", "{ var(txn.newcomer) -m found }"
    yield f"  http-request set-var(txn.user) req.cook({name}){_if(fits, f'{{ req.cook({name}) -m len gt 0 }}')}"
    yield f"  http-request set-var(txn.newcomer) uuid{_if(fits, f'!{known}')}"
    yield f"  http-request set-var(txn.user) var(txn.newcomer){_if(fits, fresh)}"
    said = f"{name}=%[var(txn.newcomer)]; Path=/; HttpOnly; SameSite=Lax"
    yield f'  http-response add-header set-cookie "{said}"{_if(fits, fresh, "!{ ssl_fc }")}'
    yield f'  http-response add-header set-cookie "{said}; Secure"{_if(fits, fresh, "{ ssl_fc }")}'


def _signed(service: ServiceName, fits: str) -> Iterator[str]:
    cookie = f"req.cook({override.cookie_name(encode.service(service))})"
    given = _if(fits, f"{{ {cookie} -m found }}")
    yield f"  http-request set-var(txn.said) {cookie},field(1,:,3){given}"
    yield f"  http-request set-var(txn.signature) {cookie},field(4,:){given}"
    yield f"  http-request set-var(txn.key) str(key),map_str({KEY_MAP}){given}"
    yield f"  http-request set-var(txn.right) var(txn.said),hmac(sha256,txn.key),hex,lower{given}"
    yield f"  http-request set-var(txn.now) date{given}"
    true = "{ var(txn.signature),secure_memcmp(txn.right) }"
    here = f"{{ var(txn.said),field(1,:) -m str {service} }}"
    still = "{ var(txn.said),field(3,:),sub(txn.now) -m int gt 0 }"
    asked = f"var(txn.said),field(2,:),map_str({versions_name(service)})"
    yield f"  http-request set-var(txn.forced) {asked}{given} {true} {here} {still}"


def _if(*conditions: str) -> str:
    """The end of a rule that holds when all these do; one that is empty always does."""
    text = " ".join(filter(None, conditions))
    return f" if {text}" if text else ""
