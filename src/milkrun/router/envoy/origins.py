"""What the network that a caller comes from lets it say: whom it calls for, and which version it wants. Pure.

Envoy chooses among a listener's filter chains by the most exact network that has the caller's address. So there is a
chain for each set of things that may be said, and in it nothing asks for the address again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec
from envoy.config.core.v3.address_pb2 import CidrRange

from milkrun.errors import InputRefused
from milkrun.model import ServiceName
from milkrun.router.front import Front

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Origin(msgspec.Struct, frozen=True):
    """Callers from there are believed in whom they call for; and are testers of these services, by a header."""

    trusted: bool = False
    tests: tuple[ServiceName, ...] = ()


def origins(front: Front) -> dict[Origin, tuple[CidrRange, ...]]:
    """The networks by what callers from there may say. From anywhere else: `Origin()`, which has none.

    Raises InputRefused for what is no network.
    """
    trusted = [] if front.local else _networks(front.trust)
    testers = {
        service: _networks(traffic.override_from)
        for service, traffic in sorted(front.services.items())
        if traffic.override.startswith("header:")
    }
    found: dict[Origin, tuple[CidrRange, ...]] = {Origin(): ()}
    every = {network for networks in (trusted, *testers.values()) for network in networks}
    for network in sorted(every, key=str):
        origin = Origin(
            trusted=_within(network, trusted),
            tests=tuple(service for service, networks in testers.items() if _within(network, networks)),
        )
        found[origin] = (*found.get(origin, ()), _range(network))
    return found


def _networks(texts: Iterable[str]) -> list[Network]:
    try:
        return [ipaddress.ip_network(text) for text in texts]
    except ValueError as error:
        raise InputRefused(f"{str(error)[:80]!r} is no network") from error


def _within(network: Network, wider: Iterable[Network]) -> bool:
    return any(network.version == each.version and network.subnet_of(each) for each in wider)  # type: ignore[arg-type]


def _range(network: Network) -> CidrRange:
    return CidrRange(address_prefix=str(network.network_address), prefix_len={"value": network.prefixlen})
