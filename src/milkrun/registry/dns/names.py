"""A question's name, read as Consul reads it. Pure.

    [tag.]<service>.service[.dc].consul         _<service>._<tag>[.service][.dc].consul   (RFC 2782)
    <node>.node[.dc].consul                     <hex address>.addr[.dc].consul
    <reversed address>.in-addr.arpa, .ip6.arpa

Tags and node names may have dots. A name that only has others below it exists: it is `Between`, and gets no
NXDOMAIN, which would tell a resolver that nothing is below either (RFC 8020).
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv6Address

import msgspec

from milkrun.registry.dns.records import Name
from milkrun.registry.nouns import DATACENTER

DOMAIN = b"consul"
KINDS = (b"service", b"node", b"addr")
ANY_PROTOCOL = "tcp"


class ServiceAsked(msgspec.Struct, frozen=True):
    """The routable instances of a service, of those with the tag if there is one. Both in lower case."""

    service: str
    tag: str = ""


class NodeAsked(msgspec.Struct, frozen=True):
    """A node, by its name in lower case."""

    node: str


class AddressAsked(msgspec.Struct, frozen=True):
    """The address that is written in the name itself."""

    packed: bytes


class ReverseAsked(msgspec.Struct, frozen=True):
    """Who has this IP address."""

    packed: bytes


class Place(Enum):
    """Names that ask for nothing in the catalog."""

    APEX = "the zone itself"
    BETWEEN = "other names are below it, nothing is at it"
    NOTHING = "no such name"
    OUTSIDE = "not this zone"


Asked = ServiceAsked | NodeAsked | AddressAsked | ReverseAsked | Place


def asked(name: Name, datacenter: str = DATACENTER) -> Asked:
    """What the name asks for."""
    folded = tuple(label.lower() for label in name)
    if folded[-1:] == (b"arpa",):
        return _reverse(folded)
    if folded[-1:] != (DOMAIN,):
        return Place.OUTSIDE
    return _inside(folded[:-1], datacenter.lower().encode())


def _inside(labels: Name, datacenter: bytes) -> Asked:
    """What stands before `.consul` is read from the right, up to the first label that names a kind."""
    if not labels:
        return Place.APEX
    for at in range(len(labels) - 1, -1, -1):
        label = labels[at]
        if label in KINDS:
            return _of_kind(label, labels[:at], labels[at + 1 :], datacenter)
        if label.startswith(b"_"):
            # RFC 2782 names need no `service`.
            return _of_kind(b"service", labels[: at + 1], labels[at + 1 :], datacenter)
    return Place.BETWEEN if labels == (datacenter,) else Place.NOTHING


def _of_kind(kind: bytes, parts: Name, suffix: Name, datacenter: bytes) -> Asked:
    # An address is the same in every datacenter, so Consul does not look at which one is named.
    known = suffix in ((), (datacenter,)) or (kind == b"addr" and len(suffix) == 1)
    if not known or not all(label.isascii() for label in parts):
        return Place.NOTHING
    if not parts:
        return Place.BETWEEN
    match kind:
        case b"service":
            return _service([label.decode() for label in parts])
        case b"node":
            return NodeAsked(b".".join(parts).decode())
        case _:
            return _address(parts)


def _service(parts: list[str]) -> Asked:
    match parts:
        case [service, tag] if service.startswith("_") and tag.startswith("_"):
            return ServiceAsked(service[1:], "" if tag[1:] == ANY_PROTOCOL else tag[1:])
        case [protocol] if protocol.startswith("_"):
            return Place.BETWEEN
        case [*tag, service]:
            return ServiceAsked(service, ".".join(tag))
        case _:
            return Place.NOTHING


def _address(parts: Name) -> Asked:
    if len(parts) != 1 or len(parts[0]) not in (8, 32):
        return Place.NOTHING
    try:
        packed = bytes.fromhex(parts[0].decode())
    except ValueError:
        return Place.NOTHING
    return AddressAsked(packed) if len(packed) * 2 == len(parts[0]) else Place.NOTHING


def _reverse(labels: Name) -> Asked:
    digits = b".".join(reversed(labels[:-2])).decode("latin-1")
    try:
        match labels[-2:-1], len(labels) - 2:
            case (b"in-addr",), 4:
                return ReverseAsked(IPv4Address(digits).packed)
            case (b"ip6",), 32:
                hexadecimal = digits.replace(".", "")
                groups = [hexadecimal[at : at + 4] for at in range(0, 32, 4)]
                return ReverseAsked(IPv6Address(":".join(groups)).packed)
            case _:
                return Place.OUTSIDE
    except ValueError:
        return Place.OUTSIDE


def address_name(packed: bytes, datacenter: str) -> Name:
    """The name that asks for this address."""
    return (packed.hex().encode(), b"addr", datacenter.encode(), DOMAIN)
