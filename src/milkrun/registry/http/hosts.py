"""Which names the registry answers to, and which pages a browser may write from. Pure.

A page of a stranger can point a name of its own at this machine (DNS rebinding): the browser then takes the
registry for that page's own server, and only the Host header still tells the name. Addresses need no such care:
a page that was loaded from an address came from there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Self

from milkrun.errors import InputRefused

SEEN_AT_MOST = 1024
_HOST = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::[0-9]{0,5})?")
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_OWN_DOMAIN = ".consul"
_READS = (b"GET", b"HEAD", b"OPTIONS")
_OWN_PAGES = (b"same-origin", b"none")


class Hosts:
    """The names of a registry: localhost, every IP address, every name below `.consul`, and `names`."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset({"localhost", *(name.lower().rstrip(".") for name in names)})
        self._seen: set[bytes] = set()

    @classmethod
    def named(cls, own: Iterable[str], allowed: Iterable[str]) -> Self:
        """The names that the machine has (`own`) and those that somebody allowed; one that is none is refused."""
        names = list(allowed)
        for name in names:
            if not _NAME.fullmatch(name.lower().rstrip(".")):
                raise InputRefused(
                    f"{name[:80]!r} is not a host's name",
                    remedy="--allow-host takes a name without scheme and port, such as registry.example.org",
                )
        short = [name.partition(".")[0] for name in own]
        return cls([*own, *short, *names])

    def has(self, host: bytes) -> bool:
        """Whether the registry is meant by this Host header; a port in it does not count."""
        if host in self._seen:
            return True
        if not self._knows(host):
            return False
        if len(self._seen) >= SEEN_AT_MOST:
            self._seen.clear()
        self._seen.add(host)
        return True

    def _knows(self, host: bytes) -> bool:
        found = _HOST.fullmatch(host.decode("latin-1").lower())
        if not found:
            return False
        name = found["host"]
        if name.startswith("["):
            return _is_address(name[1:-1], 6)
        name = name.removesuffix(".")
        return name in self._names or name.endswith(_OWN_DOMAIN) or _is_address(name, 4)


def from_elsewhere(method: bytes, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page of another origin sent this write; only browsers say where a request comes from.

    The rule is that of Go's `http.CrossOriginProtection`: Sec-Fetch-Site decides, where there is none
    the Origin has to be the Host.
    """
    if method in _READS:
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in _OWN_PAGES
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower()


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
