"""The only way for a name or a number into HAProxy's files and commands: each is checked again, none is escaped.

HAProxy's socket takes `;` and line ends as more commands, and its file takes whatever stands after an address
as more keywords (research: M3, M4). So every word is checked against the grammar of what it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from milkrun import grammar
from milkrun.errors import InputRefused
from milkrun.model import (
    SHARE_SLOTS,
    ServiceName,
    VersionName,
    endpoint,
    host_port,
    instance_id,
    service_name,
    version_name,
)
from milkrun.router.desired import Server
from milkrun.router.placement import Placement

LANES_AT_MOST = 26
SECONDS_AT_MOST = 86_400.0
_PATH = re.compile(grammar.SEGMENTS)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_METHOD = re.compile(grammar.METHOD)
_HEADER = re.compile(grammar.HEADER)
_HEADER_VALUE = re.compile(grammar.HEADER_VALUE)
_COOKIE = re.compile(grammar.COOKIE)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def lane(service: ServiceName, number: int) -> str:
    """The name of a service's lane: `goat.a` is number 0."""
    if not 0 <= number < LANES_AT_MOST:
        raise InputRefused(f"there is no lane {number}: a service has {LANES_AT_MOST} at most")
    return f"{service_name(service)}.{chr(ord('a') + number)}"


def service(name: str) -> ServiceName:
    """A service's name."""
    return service_name(name)


def _word(what: str, pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise InputRefused(f"{text[:80]!r} is not {what}")
    return text


def path(text: str) -> str:
    """A path of whole segments, without an end slash."""
    return _word("a path", _PATH, text)


def host(text: str) -> str:
    """A host's name."""
    return _word("a host's name", _HOST, text)


def method(text: str) -> str:
    """A request's method."""
    return _word("a method", _METHOD, text)


def header(text: str) -> str:
    """A header's name."""
    return _word("a header's name", _HEADER, text)


def header_value(text: str) -> str:
    """A header's value. It may begin with `-`, which only `--` before it keeps from being an option."""
    return _word("a header's value", _HEADER_VALUE, text)


def digest(text: str) -> str:
    """A SHA-256 in hexadecimal: the name of a certificate's file."""
    return _word("a digest", _DIGEST, text)


def network(text: str) -> str:
    """A network, as `10.0.0.0/8`."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise InputRefused(f"{text[:80]!r} is not a network") from error


def cookie(text: str) -> str:
    """A cookie's name."""
    return _word("a cookie's name", _COOKIE, text)


def version(text: str) -> VersionName:
    """A version's name, as the key of a map."""
    return version_name(text)


def slots(percent: float) -> int:
    """A part of requests, in slots of 0.01 %: at least one."""
    if not 0.01 <= percent <= 100:
        raise InputRefused(f"{percent} is no percentage from 0.01 to 100")
    return round(percent * SHARE_SLOTS / 100)


def milliseconds(seconds: float) -> str:
    """A time of at least a millisecond, as `1500ms`."""
    if not 0.001 <= seconds <= SECONDS_AT_MOST:
        raise InputRefused(f"{seconds} is no time between a millisecond and a day")
    return f"{round(seconds * 1000)}ms"


def address(host: str, port: int) -> str:
    """`host:port` for a server line, IPv6 in brackets."""
    host, port = endpoint(host, port)
    return _written(host, port)


def bind(host: str, port: int) -> str:
    """`host:port` for a bind line; unlike a server, it may be every address of the machine."""
    return _written(*host_port(_written(host, port)))


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def server(value: Server) -> tuple[str, str, int]:
    """A server's name, address and weight."""
    if not 1 <= value.weight <= 256:
        raise InputRefused(f"{value.weight} is not a server weight between 1 and 256")
    return instance_id(value.id), address(value.address, value.port), value.weight


def ranges(
    service: ServiceName, placement: Placement, lanes: Mapping[VersionName, int]
) -> list[tuple[str, str]]:
    """The map's entries, `0:7999` -> `goat.a`: together all slots, or none at all."""
    entries = []
    start = 0
    for span in placement:
        if not start == span.first <= span.last:
            raise InputRefused(f"{span.version} has slots {span.first} to {span.last}, after {start} others")
        entries.append((f"{span.first}:{span.last}", lane(service, lanes[span.version])))
        start = span.last + 1
    if start not in (0, SHARE_SLOTS):
        raise InputRefused(f"the shares sum to {start} of {SHARE_SLOTS} slots")
    return entries
