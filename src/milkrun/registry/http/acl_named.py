"""What policies and roles have in common: both go by an id that never changes and a name that one of them has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from milkrun.registry.access.tokens import Policy, Role
from milkrun.registry.http.acl import uuid_of
from milkrun.registry.http.health import named
from milkrun.registry.http.message import Request
from milkrun.registry.refusal import Refused

_T = TypeVar("_T")


def found(
    request: Request, what: str, by_id: Callable[[str], _T | None], by_name: Callable[[str], _T | None]
) -> _T | None:
    """The one that the path asks for by its id, or (`name/`) by its name."""
    asked = named(request, f"{what} ID")
    if asked.startswith("name/"):
        return by_name(asked.removeprefix("name/"))
    return by_id(uuid_of(request, what))


def refuse_other_id(body_id: str, asked: str, what: str) -> None:
    """Raises Refused for a body that is of another one than its path."""
    if body_id not in ("", asked):
        raise Refused(400, f"Bad request: {what} ID in URL and payload do not match")


def refuse_name(name: str, at_most: int, what: str) -> None:
    """Raises Refused for a name with other signs, or longer than Consul takes."""
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{at_most}}}", name):
        signs = "Only alphanumeric characters, '-' and '_' are allowed"
        raise Refused(500, f"Invalid {what}: invalid Name. {signs}")


def shown(each: Policy | Role, **more: Any) -> dict[str, Any]:
    """As answers have it, with what else is of its kind."""
    return {
        "ID": each.id,
        "Name": each.name,
        "Description": each.description,
        **more,
        "Hash": "",
        "CreateIndex": each.create_index,
        "ModifyIndex": each.modify_index,
    }
