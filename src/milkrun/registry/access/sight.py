"""What an authority may see of an answer. Pure.

Lists lose what may not be read, and the answer then says so: a part that looks like the whole is how a narrowed
token becomes "all instances are gone".
"""

from __future__ import annotations

from typing import Any, TypeVar

from milkrun.registry.access.authority import Authority
from milkrun.registry.access.rules import Resource
from milkrun.registry.events import Event
from milkrun.registry.nouns import Check, Entry, Node, Service, Session
from milkrun.registry.views import CatalogEntry, HealthEntry

_Item = TypeVar("_Item")


def may_see(authority: Authority, item: Any) -> bool:
    """Whether the item may be read. Raises TypeError for what no rule speaks of: it is not shown by mistake."""
    reads = authority.reads
    match item:
        case Entry():
            return reads(Resource.KEY, item.key)
        case HealthEntry():
            return reads(Resource.NODE, item.node.node) and reads(Resource.SERVICE, item.service.service)
        case CatalogEntry():
            return reads(Resource.NODE, item.node) and reads(Resource.SERVICE, item.service_name)
        case Node():
            return reads(Resource.NODE, item.node)
        case Service():
            return reads(Resource.SERVICE, item.service)
        case Check():
            return reads(Resource.NODE, item.node) and (
                not item.service_name or reads(Resource.SERVICE, item.service_name)
            )
        case Session():
            return reads(Resource.SESSION, item.node)
        case Event():
            return reads(Resource.EVENT, item.name)
        case _:
            raise TypeError(f"who may see a {type(item).__name__}?")


def seen(authority: Authority, items: list[_Item]) -> list[_Item]:
    """The items that may be read; the same list when those are all."""
    if authority.reads_all:
        return items
    kept = [item for item in items if may_see(authority, item)]
    return items if len(kept) == len(items) else kept


def of_values(authority: Authority, items: dict[str, _Item]) -> dict[str, _Item]:
    """The items by their names, without those that may not be read."""
    return _same_or(items, {name: item for name, item in items.items() if may_see(authority, item)})


def of_checks_here(authority: Authority, checks: dict[str, Check]) -> dict[str, Check]:
    """The agent's checks that may be read; for a service's it takes no right on the node, which is the agent's own."""
    kept = {
        check_id: check
        for check_id, check in checks.items()
        if (
            authority.reads(Resource.SERVICE, check.service_name)
            if check.service_name
            else authority.reads(Resource.NODE, check.node)
        )
    }
    return _same_or(checks, kept)


def of_names(authority: Authority, items: dict[str, _Item]) -> dict[str, _Item]:
    """What is kept by the name of a service, without the services that may not be read."""
    kept = {name: item for name, item in items.items() if authority.reads(Resource.SERVICE, name)}
    return _same_or(items, kept)


def of_node(authority: Authority, whole: dict[str, Any] | None) -> dict[str, Any] | None:
    """A node with those of its services that may be read; None when the node may not."""
    if not whole or whole["Node"] is None:
        return whole
    if not may_see(authority, whole["Node"]):
        return None
    services = whole["Services"]
    kept = of_values(authority, services) if isinstance(services, dict) else seen(authority, services)
    return whole if kept is services else {**whole, "Services": kept}


def of_whole_node(authority: Authority, whole: dict[str, Any]) -> dict[str, Any]:
    """The UI's node with those of its services and checks that may be read; the node may."""
    kept = {part: seen(authority, whole[part]) for part in ("Services", "Checks")}
    return whole if all(kept[part] is whole[part] for part in kept) else {**whole, **kept}


def of_whole_nodes(authority: Authority, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The UI's nodes that may be read, each as `of_whole_node` shows it."""
    kept = [of_whole_node(authority, each) for each in nodes if authority.reads(Resource.NODE, each["Node"])]
    same = len(kept) == len(nodes) and all(new is old for new, old in zip(kept, nodes, strict=True))
    return nodes if same else kept


def _same_or(items: dict[str, _Item], kept: dict[str, _Item]) -> dict[str, _Item]:
    return items if len(kept) == len(items) else kept
