"""Where a check wants to go, read from what was registered. Pure.

One reading of a URL decides both what is judged and where the probe connects, so that no spelling can mean one
address to the judge and another one to the socket.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

_PORTS = {"http": 80, "https": 443}
_SERVICE_AT_MOST = 1024
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Target(msgspec.Struct, frozen=True):
    """A host (a name, or an address without brackets) and a port."""

    host: str
    port: int

    @property
    def literal(self) -> IPv4Address | IPv6Address | None:
        """The address, when the host is one in its plain spelling; None for names and for 127.1, 0x7f000001 ..."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """A URL taken apart. `authority` is for the Host header, `login` a user and a password."""

    scheme: str
    target: Target
    authority: str
    path: str
    login: tuple[str, str] | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A gRPC server, and which of its services is meant (empty: all of it). `authority` is what it is called by."""

    target: Target
    authority: str
    service: str


class BadTarget(ValueError):
    """The text names no place to connect to; the message is Go's."""


def of_url(url: str) -> Web:
    """What the URL asks for, and where. Raises BadTarget for what is no http or https URL with a host."""
    # Browsers and libraries disagree about these: what is judged must be what is asked.
    if any(char == "\\" or ord(char) <= 32 or ord(char) == 127 for char in url):
        raise BadTarget("net/url: invalid control character or space in URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadTarget(f"net/url: {error}") from error
    if parts.scheme not in _PORTS:
        raise BadTarget(f'unsupported protocol scheme "{parts.scheme[:64]}"')
    host = _host(parts)
    if port == 0:
        raise BadTarget("address 0: invalid port")
    user = parts.username
    return Web(
        scheme=parts.scheme,
        target=Target(host, port or _PORTS[parts.scheme]),
        authority=parts.netloc.rpartition("@")[2],
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        login=None if user is None else (unquote(user), unquote(parts.password or "")),
    )


def of_address(address: str) -> Target:
    """The host and port of HOST:PORT. Raises BadTarget."""
    host, colon, port = address.rpartition(":")
    if not colon:
        raise BadTarget(f"dial tcp: address {address}: missing port in address")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise BadTarget(f"dial tcp: address {address}: no IPv6 address in brackets")
    elif ":" in host:
        raise BadTarget(f"dial tcp: address {address}: too many colons in address")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise BadTarget(f"dial tcp: address {port}: invalid port")
    if not _is_host(host):
        raise BadTarget(f"dial tcp: lookup {host}: no such host")
    return Target(host, int(port))


def of_grpc(text: str) -> Health:
    """The server and the service of HOST:PORT[/SERVICE]. Raises BadTarget."""
    address, _, service = text.partition("/")
    if len(service) > _SERVICE_AT_MOST:
        raise BadTarget(f"the service's name has {len(service)} characters; {_SERVICE_AT_MOST} is the most")
    target = of_address(address)
    host = f"[{target.host}]" if ":" in target.host else target.host
    return Health(target=target, authority=f"{host}:{target.port}", service=service)


def is_server_name(name: str) -> bool:
    """Whether a certificate can be asked for by this name; empty: by the host's."""
    return not name or _is_host(name)


def is_method(method: str) -> bool:
    """Whether HTTP knows such a word as a method."""
    return bool(method) and all(char in _TOKEN for char in method)


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host:
        raise BadTarget("http: no Host in request URL")
    if not _is_host(host):
        raise BadTarget(f'net/url: invalid host "{host[:253]}"')
    return host


def _is_host(host: str) -> bool:
    """Only ASCII: a full-width digit is a digit to some resolvers. No zone: link-local is never probed."""
    if ":" in host:
        try:
            return "%" not in host and bool(ip_address(host))
        except ValueError:
            return False
    return (
        0 < len(host) <= 253
        and host.isascii()
        and all(char.isalnum() or char in "-._" for char in host)
        and all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))
    )
