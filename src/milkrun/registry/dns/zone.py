"""The catalog as DNS sees it: which instances of a service may be routed to, by tag. Pure.

A service's view is made when it is first asked for and kept until anything in the health answer of that
service changes, so that a question costs what its answer holds and not what the service has.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from milkrun.registry import topics
from milkrun.registry.dns.names import DOMAIN, address_name
from milkrun.registry.dns.records import Host, Name, Type, fits, host, host_name
from milkrun.registry.nouns import CRITICAL, WARNING, Check, Node, Service
from milkrun.registry.state import Machine

_HOST_TYPES = (Type.A, Type.AAAA, Type.CNAME)


class Endpoint(msgspec.Struct, frozen=True):
    """A routable instance: the name that its SRV record points to, where it is, and what it counts."""

    target: Name
    host: Host
    port: int
    weight: int


class Tagged(msgspec.Struct, frozen=True):
    """Endpoints as each type of question wants them: all for SRV, each address once for A and AAAA."""

    endpoints: list[Endpoint]
    v4: list[Host]
    v6: list[Host]
    names: list[Host]


class View(msgspec.Struct, frozen=True):
    """One service. `by_tag` is in lower case, "" for all of it; `between` are the ends of tags with dots."""

    by_tag: dict[str, Tagged]
    between: frozenset[str]


class Known(msgspec.Struct):
    """Names in lower case, each with the names in the catalog that it means, as of an index."""

    index: int = -1
    names: dict[str, list[str]] = {}


class Zone:
    """Reads a machine; the views stay right as it changes."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._services = Known()
        self._nodes = Known()
        self._views: dict[str, tuple[int, View]] = {}
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
            kept = self._views[name] = (index, self._view(names))
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
            if host(node.address) == wanted and (name := node_name(node)):
                return name
        for on, services in catalog.services.items():
            for service in services.values():
                if service.address and host(service.address) == wanted and host_name(service.service):
                    datacenter = catalog.nodes[on].datacenter
                    return (*host_name(service.service), b"service", datacenter.encode(), DOMAIN)
        return ()

    def _learn_services(self) -> None:
        index = self.machine.ledger.at(topics.SERVICES)
        if index != self._services.index:
            self._services = Known(index, _folded(self.machine.catalog.named))
            self._views = {name: view for name, view in self._views.items() if name in self._services.names}

    def _learn_nodes(self) -> None:
        index = self.machine.ledger.at(topics.NODES)
        if index != self._nodes.index:
            self._nodes = Known(index, _folded(self.machine.catalog.nodes))
            self._between_nodes = frozenset(end for name in self._nodes.names for end in _ends(name))

    def _view(self, names: list[str]) -> View:
        """Each tag's endpoints, each target and port once; an instance that cannot be named is left out."""
        catalog = self.machine.catalog
        by_tag: dict[str, dict[tuple[Name, int], Endpoint]] = {"": {}}
        for name in names:
            for (on, service_id), service in catalog.named[name].items():
                own = catalog.service_checks.get((on, service_id), {})
                nodes = catalog.service_checks.get((on, ""), {})
                found = endpoint(catalog.nodes[on], service, (*own.values(), *nodes.values()))
                if found is None:
                    continue
                for tag in {"", *(tag.lower() for tag in service.tags)}:
                    by_tag.setdefault(tag, {}).setdefault((found.target, found.port), found)
        between = frozenset(end for tag in by_tag for end in _ends(tag))
        return View({tag: _tagged(list(found.values())) for tag, found in by_tag.items()}, between)


def endpoint(node: Node, service: Service, checks: Iterable[Check]) -> Endpoint | None:
    """The instance as DNS shows it; None when it may not be routed to, or is at no address that DNS can tell.

    Maintenance is a critical check too.
    """
    weight = service.weights.passing
    for check in checks:
        if check.status == CRITICAL:
            return None
        if check.status == WARNING:
            weight = service.weights.warning
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


def _tagged(endpoints: list[Endpoint]) -> Tagged:
    hosts = list(dict.fromkeys(each.host for each in endpoints))
    return Tagged(endpoints, *([one for one in hosts if one.type is kind] for kind in _HOST_TYPES))


def _folded(names: Iterable[str]) -> dict[str, list[str]]:
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.lower(), []).append(name)
    return folded


def _ends(name: str) -> Iterable[str]:
    """What follows each dot."""
    parts = name.split(".")
    return (".".join(parts[at:]) for at in range(1, len(parts)))
