"""What DNS answers consist of, before they are bytes. Pure.

Names are tuples of labels without the root, as they were written: `(b"goat", b"service", b"consul")`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from ipaddress import ip_address

import msgspec

Name = tuple[bytes, ...]

LABEL_AT_MOST = 63
NAME_AT_MOST = 255
TEXT_AT_MOST = 255
_LABEL = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")


class Type(IntEnum):
    """The record types that this zone has. Source: RFC 1035 §3.2.2, RFC 3596, RFC 2782."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    ANY = 255


class Rcode(IntEnum):
    """How an answer ends. Source: RFC 1035 §4.1.1, RFC 6891 §6.1.3."""

    NOERROR = 0
    FORMERR = 1
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Record(msgspec.Struct, frozen=True):
    """One record. Its data are parts in a row: bytes as they are, and names."""

    owner: Name
    type: Type
    data: tuple[bytes | Name, ...]


class Group(msgspec.Struct, frozen=True):
    """An answer record with the additional ones that its reader needs: they are sent or cut together."""

    record: Record
    additional: tuple[Record, ...] = ()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. Only `answer` may be cut where room is short, and then the reader is told.

    It is read once and no further than there is room, so that what does not fit need not be made.
    """

    rcode: Rcode = Rcode.NOERROR
    authoritative: bool = True
    answer: Iterable[Group] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


class Host(msgspec.Struct, frozen=True):
    """Where an instance or a node is: an IP address as `packed` bytes, or else a host's `name`."""

    packed: bytes = b""
    name: Name = ()

    @property
    def type(self) -> Type:
        """The type of the record that says so."""
        return {4: Type.A, 16: Type.AAAA}.get(len(self.packed), Type.CNAME)


@lru_cache(maxsize=65_536)
def host(text: str) -> Host | None:
    """What the catalog's text means; None when it is neither an IP address nor a host's name."""
    try:
        parsed = ip_address(text)
    except ValueError:
        name = host_name(text.removesuffix("."))
        return Host(name=name) if name else None
    return None if getattr(parsed, "scope_id", None) else Host(packed=parsed.packed)


def host_name(text: str) -> Name:
    """The labels of a host's name; none when it is not one that every resolver takes."""
    labels = tuple(text.encode().split(b"."))
    return labels if fits(labels) and all(_LABEL.fullmatch(label) for label in labels) else ()


def fits(name: Name) -> bool:
    """Whether the name is short enough for DNS."""
    return sum(len(label) + 1 for label in name) < NAME_AT_MOST and max(map(len, name)) <= LABEL_AT_MOST


def address(owner: Name, where: Host) -> Record:
    """The record that says where `owner` is: A, AAAA, or CNAME when only a name is known."""
    return Record(owner, where.type, (where.packed or where.name,))


def service(owner: Name, weight: int, port: int, target: Name) -> Record:
    """An SRV record, at priority 1 as Consul's."""
    return Record(owner, Type.SRV, (struct.pack("!HHH", 1, weight, port), target))


def text(owner: Name, value: str) -> Record:
    """A TXT record; a long value is several strings of it."""
    raw = value.encode()
    parts = [raw[at : at + TEXT_AT_MOST] for at in range(0, len(raw), TEXT_AT_MOST)] or [b""]
    return Record(owner, Type.TXT, tuple(bytes([len(part)]) + part for part in parts))
