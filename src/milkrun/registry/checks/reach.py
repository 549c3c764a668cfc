"""Which addresses a check may reach: the allow-list against requests forged through the registry. Pure.

Whoever may register a service could otherwise make the registry ask any address that it can reach, and read the
answer (CVE-2022-29153 of Consul was that, by a redirect to a cloud's metadata server).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import msgspec

from milkrun.errors import InputRefused
from milkrun.settings import check_allow

Address = IPv4Address | IPv6Address
Network = check_allow.Network

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
            for never, what in check_allow.NEVER:
                if each in never:
                    return f"checks never reach {address}: it is {what}"
        local = address.is_loopback
        if port == self.door[1] and (local or _same(address, self.door[0])):
            return f"checks never reach {address} port {port}: it is this registry's own"
        if local or _same(address, own) or any(address in each for each in self.allowed):
            return ""
        return (
            f"checks may not reach {address}: it is neither the service's own address"
            f"{f' ({own})' if own else ''} nor loopback; whoever runs this registry can permit it: "
            f"milkrun registry --check-allow {address}/{address.max_prefixlen}, "
            "or registry.check_allow in milkrun.toml"
        )


def parse(networks: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks that the operator wrote. Raises InputRefused for what is none, or could never be reached."""
    try:
        return tuple(check_allow.network(text) for text in networks)
    except InputRefused as error:
        raise InputRefused(f"--check-allow {error.reason}", remedy=error.remedy) from error


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
