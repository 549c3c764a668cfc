"""A question, answered from the zone. Pure: the choice among many comes in as `pick`."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, assert_never

from milkrun.registry.dns import records
from milkrun.registry.dns.names import (
    DOMAIN,
    AddressAsked,
    NodeAsked,
    Place,
    ReverseAsked,
    ServiceAsked,
    address_name,
    asked,
)
from milkrun.registry.dns.records import Group, Host, Name, Rcode, Record, Reply, Type
from milkrun.registry.dns.zone import Endpoint, Tagged, Zone, node_name
from milkrun.registry.nouns import DATACENTER, Node

APEX: Name = (DOMAIN,)
WEIGHT_AT_MOST = 65_535
ALIASES_AT_MOST = 8
PLAIN_META = "rfc1035-"
ADDRESS_BYTES = 16
SERVICE_BYTES = 21
"""The shortest A and SRV records: more than the room has of these are not picked, as they cannot fit."""
_TIMES = struct.pack("!4I", 3600, 600, 86400, 0)
"""The SOA's refresh, retry and expire, and how long a no may be remembered: not at all."""

_Item = TypeVar("_Item")


class Pick(Protocol):
    """Some of the items, `count` or all if there are fewer, in random order."""

    def __call__(self, items: Sequence[_Item], count: int) -> list[_Item]:
        """The ones that it picked."""


class Answers:
    """Answers questions about one zone. SRV weights are the catalog's times `srv_weight_scale`."""

    def __init__(self, zone: Zone, pick: Pick, *, srv_weight_scale: int = 1) -> None:
        self.zone = zone
        self._pick = pick
        self._scale = srv_weight_scale

    def reply(self, name: Name, kind: int, room: int, *, aliases: int = 0) -> Reply:
        """The answer to a question of class IN; `room` is how many bytes it may take."""
        match question := asked(name):
            case ServiceAsked():
                return self._service(name, kind, room, question, aliases)
            case NodeAsked():
                return self._node(name, kind, question)
            case AddressAsked():
                return self._of_type([records.address(name, Host(packed=question.packed))], kind)
            case ReverseAsked():
                return self._reverse(name, kind, question)
            case Place.APEX:
                return self._apex(kind)
            case Place.BETWEEN:
                return self._nothing(Rcode.NOERROR)
            case Place.NOTHING:
                return self._nothing(Rcode.NXDOMAIN)
            case Place.OUTSIDE:
                return Reply(rcode=Rcode.REFUSED, authoritative=False)
            case _:
                assert_never(question)

    def _service(self, name: Name, kind: int, room: int, question: ServiceAsked, aliases: int) -> Reply:
        view = self.zone.service(question.service)
        tagged = view.by_tag.get(question.tag) if view else None
        if tagged is None or not tagged.endpoints:
            between = view is not None and question.tag in view.between
            return self._nothing(Rcode.NOERROR if between else Rcode.NXDOMAIN)
        if kind == Type.SRV:
            return Reply(answer=self._endpoints(name, room, tagged.places, aliases))
        return self._hosts(name, kind, room, tagged, aliases)

    def _endpoints(self, name: Name, room: int, endpoints: list[Endpoint], aliases: int) -> Iterator[Group]:
        """SRV records; each target's address comes with the first record that names it."""
        told: set[Name] = set()
        for each in self._pick(endpoints, room // SERVICE_BYTES):
            weight = min(WEIGHT_AT_MOST, each.weight * self._scale)
            where = () if each.target in told else self._where(each, room, aliases)
            told.add(each.target)
            yield Group(records.service(name, weight, each.port, each.target), where)

    def _where(self, endpoint: Endpoint, room: int, aliases: int) -> tuple[Record, ...]:
        if endpoint.host.name:
            return self._behind(endpoint.target, Type.ANY, room, aliases)
        return (records.address(endpoint.target, endpoint.host),)

    def _hosts(self, name: Name, kind: int, room: int, tagged: Tagged, aliases: int) -> Reply:
        """Address records; a name stands for a service only when no instance has an address."""
        types = [each for each in (Type.A, Type.AAAA) if kind in (each, Type.ANY)]
        wanted = [host for each in types for host in tagged.hosts[each]]
        picked = self._pick(wanted, room // ADDRESS_BYTES)
        if picked:
            return Reply(answer=(Group(records.address(name, each)) for each in picked))
        names = tagged.hosts[Type.CNAME]
        only_named = names and not tagged.hosts[Type.A] and not tagged.hosts[Type.AAAA]
        if only_named and kind in (Type.A, Type.AAAA, Type.CNAME, Type.ANY):
            (alias,) = self._pick(names, 1)
            behind = () if kind == Type.CNAME else self._behind(alias.name, kind, room, aliases)
            return Reply(answer=[Group(each) for each in (records.address(name, alias), *behind)])
        return self._nothing(Rcode.NOERROR)

    def _behind(self, target: Name, kind: int, room: int, aliases: int) -> tuple[Record, ...]:
        """The addresses of a name, when they are in this zone: a plain client does not ask again."""
        if target[-1].lower() != DOMAIN or aliases >= ALIASES_AT_MOST:
            return ()
        found = self.reply(target, kind, room, aliases=aliases + 1).answer
        return tuple(group.record for group in found if group.record.type is not Type.TXT)

    def _node(self, name: Name, kind: int, question: NodeAsked) -> Reply:
        node = self.zone.node(question.node)
        if node is None:
            between = self.zone.between_nodes(question.node)
            return self._nothing(Rcode.NOERROR if between else Rcode.NXDOMAIN)
        where = records.host(node.address)
        return self._of_type(
            [*([records.address(name, where)] if where else []), *_described(name, node)], kind
        )

    def _reverse(self, name: Name, kind: int, question: ReverseAsked) -> Reply:
        """Somebody's name. This zone does not hold the others' addresses, so it refuses and does not deny."""
        found = self.zone.named(question.packed) if kind in (Type.PTR, Type.ANY) else ()
        if not found:
            return Reply(rcode=Rcode.REFUSED, authoritative=False)
        return Reply(answer=[Group(Record(name, Type.PTR, (found,)))])

    def _apex(self, kind: int) -> Reply:
        server = self._name_server()
        server_record = Record(APEX, Type.NS, (server.owner,))
        match kind:
            case Type.SOA:
                return Reply(answer=[Group(self._soa())], authority=(server_record,), additional=(server,))
            case Type.NS:
                return Reply(answer=[Group(server_record)], additional=(server,))
            case Type.ANY:
                return Reply(answer=[Group(self._soa()), Group(server_record)], additional=(server,))
            case _:
                return self._nothing(Rcode.NOERROR)

    def _name_server(self) -> Record:
        """Where this server's own node is."""
        node = self.zone.own_node
        where = records.host(node.address) if node else None
        where = where if where and where.packed else Host(packed=bytes(4))
        name = (node_name(node) if node else ()) or address_name(where.packed, DATACENTER)
        return records.address(name, where)

    def _of_type(self, found: list[Record], kind: int) -> Reply:
        """Those that were asked for; an alias answers for every type that a host has."""
        fitting = [
            record
            for record in found
            if kind in (record.type, Type.ANY) or (record.type is Type.CNAME and kind in (Type.A, Type.AAAA))
        ]
        return (
            Reply(answer=[Group(record) for record in fitting]) if fitting else self._nothing(Rcode.NOERROR)
        )

    def _nothing(self, rcode: Rcode) -> Reply:
        return Reply(rcode=rcode, authority=(self._soa(),))

    def _soa(self) -> Record:
        numbers = struct.pack("!I", self.zone.serial) + _TIMES
        return Record(APEX, Type.SOA, ((b"ns", DOMAIN), (b"hostmaster", DOMAIN), numbers))


def _described(name: Name, node: Node) -> list[Record]:
    """The node's metadata, as `key=value` or, where the key says so, the value alone."""
    return [
        records.text(name, value if key.startswith(PLAIN_META) else f"{key}={value}")
        for key, value in (node.meta or {}).items()
    ]
