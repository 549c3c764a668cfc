"""What `?filter=` and `?node-meta=` leave of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from milkrun.registry.filters.predicate import Predicate, predicate
from milkrun.registry.filters.shapes import Fields
from milkrun.registry.http.message import Request

_Item = TypeVar("_Item")
_Name = TypeVar("_Name")


def asked(request: Request) -> bool:
    """Whether the request asks for less than the whole answer."""
    return bool(request.query) and (request.flag("filter") or request.flag("node-meta"))


def test_of(request: Request, shape: Fields) -> Predicate | None:
    """The test that the request's filter asks for, if any. Raises Refused (400) for a filter that is none."""
    text = request.one("filter") if request.query else None
    return predicate(text, shape) if text else None


def kept(items: Iterable[_Item], test: Predicate | None) -> list[_Item]:
    """The items that pass."""
    if test is None:
        return list(items)
    return [item for item in items if test(msgspec.to_builtins(item))]


def kept_by_name(items: dict[_Name, _Item], test: Predicate | None) -> dict[_Name, _Item]:
    """The named items that pass."""
    if test is None:
        return items
    return {name: item for name, item in items.items() if test(msgspec.to_builtins(item))}


def node_meta(request: Request) -> Callable[[dict[str, str] | None], bool]:
    """Whether a node's meta has all the pairs that the request asks for (`node-meta=key:value`, repeated)."""
    pairs = [each.partition(":") for each in request.query.get("node-meta", ())] if request.query else []

    def has_all(meta: dict[str, str] | None) -> bool:
        own = meta or {}
        return all(name in own and own[name] == value for name, _, value in pairs)

    return has_all
