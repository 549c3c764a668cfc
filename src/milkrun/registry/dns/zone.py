"""The catalog as DNS sees it: which instances of a service may be routed to, by tag. Pure.

A service's view is made when it is first asked for and kept until anything in the health answer of that
service changes, so that a question costs what its answer holds and not what the service has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

from milkrun.registry import topics
from milkrun.registry.access.authority import ALL, Authority
from milkrun.registry.access.rules import Resource
from milkrun.registry.dns.names import DOMAIN, address_name
from milkrun.registry.dns.records import Host, Name, Type, fits, host, host_name
from milkrun.registry.nouns import CRITICAL, WARNING, Check, Node, Service
from milkrun.registry.state import Machine


class Endpoint(msgspec.Struct, frozen=True):
    """A routable instance: the name that its SRV record points to, where it is, and what it counts."""

    target: Name
    host: Host
    port: int
    weight: int


class Tagged:
    """Endpoints as each type of question wants them. What a type needs is made when it is first asked for."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []

    @cached_property
    def places(self) -> list[Endpoint]:
        """For SRV: each target and port once, however many instances are registered there."""
        return list({(one.target, one.port): one for one in self.endpoints}.values())

    @cached_property
    def hosts(self) -> dict[Type, list[Host]]:
        """Where the endpoints are, each once, by the type of record that says so."""
        by_type: dict[Type, list[Host]] = {Type.A: [], Type.AAAA: [], Type.CNAME: []}
        for one in dict.fromkeys(each.host for each in self.endpoints):
            by_type[one.type].append(one)
        return by_type


class Made(msgspec.Struct, frozen=True):
    """An endpoint, and what it was made from; `is` tells whether it still holds."""

    service: Service
    node: Node
    weight: int
    endpoint: Endpoint | None
    tags: tuple[str, ...]


class View(msgspec.Struct, frozen=True):
    """One service. `by_tag` is in lower case, "" for all of it; `between` are the ends of tags with dots."""

    by_tag: dict[str, Tagged]
    between: frozenset[str]


class Known(msgspec.Struct):
    """Names in lower case, each with the names in the catalog that it means, as of an index."""

    index: int = -1
    names: dict[str, list[str]] = {}


class Zone:
    """What the authority may see of a machine; the views stay right as the machine changes."""

    def __init__(self, machine: Machine, who: Authority = ALL) -> None:
        self.machine = machine
        self._who = who
        self._services = Known()
        self._nodes = Known()
        self._views: dict[str, tuple[int, View]] = {}
        self._made: dict[str, dict[tuple[str, str], Made]] = {}
        self._between_nodes: frozenset[str] = frozenset()

    @property
    def serial(self) -> int:
        """The zone's serial number: the registry's index, which moves with every change."""
        return self.machine.ledger.index & 0xFFFFFFFF

    @property
    def own_node(self) -> Node | None:
        """The node that this registry runs on."""
        return self.machine.catalog.nodes.get(self.machine.node)

    def service(self, name: str) -> View | None:
        """The view of a service by its name in lower case; None when there is none of that name."""
        self._learn_services()
        names = self._services.names.get(name)
        if not names:
            return None
        index = max(self.machine.ledger.at(topics.service(each)) for each in names)
        kept = self._views.get(name)
        if kept is None or kept[0] != index:
            kept = self._views[name] = (index, self._view(name, names))
        return kept[1]

    def node(self, name: str) -> Node | None:
        """A node by its name in lower case."""
        self._learn_nodes()
        names = self._nodes.names.get(name)
        return self.machine.catalog.nodes[names[0]] if names else None

    def between_nodes(self, name: str) -> bool:
        """Whether nodes have names that end in this one after a dot."""
        self._learn_nodes()
        return name in self._between_nodes

    def named(self, packed: bytes) -> Name:
        """The name of the node, or else of the service, that has this address; none when nobody has it."""
        catalog = self.machine.catalog
        wanted = Host(packed=packed)
        for node in catalog.nodes.values():
            if not self._who.reads(Resource.NODE, node.node):
                continue
            if host(node.address) == wanted and (name := node_name(node)):
                return name
        for on, services in catalog.services.items():
            for service in services.values():
                if not (
                    self._who.reads(Resource.NODE, on) and self._who.reads(Resource.SERVICE, service.service)
                ):
                    continue
                if service.address and host(service.address) == wanted and host_name(service.service):
                    datacenter = catalog.nodes[on].datacenter
                    return (*host_name(service.service), b"service", datacenter.encode(), DOMAIN)
        return ()

    def _seen(self, resource: Resource, names: Iterable[str]) -> Iterable[str]:
        return (name for name in names if self._who.reads(resource, name))

    def _learn_services(self) -> None:
        index = self.machine.ledger.at(topics.SERVICES)
        if index != self._services.index:
            self._services = Known(index, _folded(self._seen(Resource.SERVICE, self.machine.catalog.named)))
            for name in self._views.keys() - self._services.names.keys():
                del self._views[name]
                del self._made[name]

    def _learn_nodes(self) -> None:
        index = self.machine.ledger.at(topics.NODES)
        if index != self._nodes.index:
            self._nodes = Known(index, _folded(self._seen(Resource.NODE, self.machine.catalog.nodes)))
            self._between_nodes = frozenset(end for name in self._nodes.names for end in _ends(name))

    def _view(self, name: str, names: list[str]) -> View:
        """The instances that may be routed to; what did not change is not made anew."""
        catalog = self.machine.catalog
        made, self._made[name] = self._made.get(name, {}), {}
        kept = self._made[name]
        by_tag = {"": Tagged()}
        for each in names:
            for key, service in catalog.named[each].items():
                node = catalog.nodes[key[0]]
                weight = _weight(
                    service, catalog.service_checks.get(key, {}), catalog.service_checks.get((key[0], ""), {})
                )
                if weight is None or not self._who.reads(Resource.NODE, key[0]):
                    continue
                one = made.get(key)
                if one is None or one.service is not service or one.node is not node or one.weight != weight:
                    one = _made(service, node, weight)
                kept[key] = one
                if one.endpoint is not None:
                    for tag in one.tags:
                        tagged = by_tag.get(tag)
                        if tagged is None:
                            tagged = by_tag[tag] = Tagged()
                        tagged.endpoints.append(one.endpoint)
        return View(by_tag, frozenset(end for tag in by_tag for end in _ends(tag)))


def _weight(service: Service, *checks: Mapping[str, Check]) -> int | None:
    """What the instance counts for; None when it may not be routed to. Maintenance is a critical check too."""
    weight = service.weights.passing
    for some in checks:
        for check in some.values():
            if check.status == CRITICAL:
                return None
            if check.status == WARNING:
                weight = service.weights.warning
    return weight


def _made(service: Service, node: Node, weight: int) -> Made:
    tags = ("", *dict.fromkeys(tag.lower() for tag in service.tags if tag))
    return Made(service, node, weight, endpoint(service, node, weight), tags)


def endpoint(service: Service, node: Node, weight: int) -> Endpoint | None:
    """The instance as DNS shows it; None when it is at no address that DNS can tell."""
    where = host(service.address or node.address)
    if where is None:
        return None
    target = (
        where.name or (not service.address and node_name(node)) or address_name(where.packed, node.datacenter)
    )
    return Endpoint(target, where, service.port, weight)


def node_name(node: Node) -> Name:
    """The DNS name of a node; none when the node's own name cannot be part of one."""
    name = host_name(node.node)
    whole = (*name, b"node", node.datacenter.encode(), DOMAIN)
    return whole if name and fits(whole) else ()


def _folded(names: Iterable[str]) -> dict[str, list[str]]:
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.lower(), []).append(name)
    return folded


def _ends(name: str) -> Iterable[str]:
    """What follows each dot."""
    parts = name.split(".")
    return (".".join(parts[at:]) for at in range(1, len(parts)))
