"""The networks that an operator permits the registry's health checks to reach, and what they never reach. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from milkrun.errors import InputRefused
from milkrun.settings.text import shown

Network = IPv4Network | IPv6Network

NEVER = tuple(
    (ip_network(text), what)
    for text, what in (
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


def network(text: str) -> Network:
    """The network that the operator wrote. Raises InputRefused for what is none, or could never be reached."""
    try:
        found = ip_network(text, strict=False)
    except ValueError as error:
        raise InputRefused(
            f"{shown(text)} is not a network", remedy="write one such as 10.1.0.0/16 or 10.1.2.3/32"
        ) from error
    # Whoever writes 10.0.0.1/8 may have meant one address or sixteen million.
    address = text.partition("/")[0]
    if ip_address(address) != found.network_address:
        raise InputRefused(
            f"{shown(text)}: the address is not where that network begins",
            remedy=f"write {found}, or {address}/{found.max_prefixlen} for that address alone",
        )
    for never, what in NEVER:
        if found.network_address in never and found.broadcast_address in never:
            raise InputRefused(f"{shown(text)}: {what}, which checks never reach", remedy="leave it out")
    return found
