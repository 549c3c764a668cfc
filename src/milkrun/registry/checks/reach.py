"""Which addresses a check may reach: the allow-list against requests forged through the registry. Pure.

Whoever may register a service could otherwise make the registry ask any address that it can reach, and read the
answer (CVE-2022-29153 of Consul was that, by a redirect to a cloud's metadata server).
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import msgspec

from milkrun.errors import InputRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NEVER = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "an unspecified address"),
        ("::/128", "an unspecified address"),
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("240.0.0.0/4", "a reserved or broadcast address"),
        ("100.100.100.200/32", "a cloud's metadata address"),
        ("168.63.129.16/32", "a cloud's metadata address"),
        ("192.0.0.192/32", "a cloud's metadata address"),
        ("fd00:ec2::254/128", "a cloud's metadata address"),
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")


class Reach(msgspec.Struct, frozen=True):
    """What the operator permits besides a service's own address and loopback, and the registry's own door."""

    allowed: tuple[Network, ...] = ()
    door: tuple[str, int] = ("", 0)
    """The node's address and the port where this registry listens: a check may not read it with local rights."""

    def refusal(self, address: Address, port: int, own: str) -> str:
        """Why a check of a service at `own` may not reach this address and port; empty when it may."""
        address = plain(address)
        # An address can carry another one, to which a gateway would pass the packets on.
        for each in (address, *_carried(address)):
            for network, what in _NEVER:
                if each in network:
                    return f"checks never reach {address}: it is {what}"
        local = address.is_loopback
        if port == self.door[1] and (local or _same(address, self.door[0])):
            return f"checks never reach {address} port {port}: it is this registry's own"
        if local or _same(address, own) or any(address in network for network in self.allowed):
            return ""
        return (
            f"checks may not reach {address}: it is neither the service's own address"
            f"{f' ({own})' if own else ''} nor loopback; whoever runs this registry can permit it: "
            f"milkrun registry --check-allow {address}/{address.max_prefixlen}"
        )


def parse(networks: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks that the operator wrote. Raises InputRefused for what is none, or could never be reached."""
    return tuple(_network(text) for text in networks)


def plain(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped IPv6 one; every other address as it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _carried(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses inside a 6to4, Teredo, NAT64 or IPv4-compatible address."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 0xFFFF):
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


def _same(address: Address, text: str) -> bool:
    try:
        return plain(ip_address(text)) == address
    except ValueError:
        return False


def _network(text: str) -> Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise InputRefused(
            f"--check-allow {text}: {error}", remedy="write a network, such as 10.1.0.0/16 or 10.1.2.3/32"
        ) from error
    # Whoever writes 10.0.0.1/8 may have meant one address or sixteen million.
    address = text.partition("/")[0]
    if ip_address(address) != network.network_address:
        raise InputRefused(
            f"--check-allow {text}: the address is not where that network begins",
            remedy=f"write {network}, or {address}/{network.max_prefixlen} for that address alone",
        )
    for never, what in _NEVER:
        if network.network_address in never and network.broadcast_address in never:
            raise InputRefused(
                f"--check-allow {text}: {what}, which checks never reach", remedy="leave it out"
            )
    return network
