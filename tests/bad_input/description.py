"""docs/openapi.json: what each operation takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.json"
METHODS = ("get", "put", "post", "delete")


def operations() -> list[tuple[str, str]]:
    """Method and path of each operation."""
    paths = json.loads(DESCRIPTION.read_text())["paths"]
    return [(method, path) for path, item in paths.items() for method in METHODS if method in item]


ENDS_IT = ("put", "/v1/agent/leave")
"""The registry carries it out: whoever asks next finds nobody."""


def harmless() -> list[tuple[str, str]]:
    """The operations after which the registry serves on."""
    return [each for each in operations() if each != ENDS_IT]


def resolved(whole: dict[str, Any], part: Any) -> Any:
    """What a reference stands for."""
    while "$ref" in part:
        found: Any = whole
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def parameters(whole: dict[str, Any], operation: dict[str, Any], place: str) -> dict[str, dict[str, Any]]:
    """The operation's parameters in path or query, by name."""
    found = [resolved(whole, each) for each in operation["parameters"]]
    return {each["name"]: each for each in found if each["in"] == place}


def route_of(path: str) -> str:
    """The path as the registry's table has it: what follows the last slash is the handler's."""
    return re.sub(r"\{[a-z]+\}$", "", path)


def fields(
    whole: dict[str, Any], schema: dict[str, Any], at: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Where each single value of a body is, and its type. Lists have one item, maps one entry named `key`."""
    schema = resolved(whole, schema)
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from fields(whole, part, at)
    kind = schema.get("type", "string" if "enum" in schema else "")
    kinds = [kind] if isinstance(kind, str) else kind
    for name, each in schema.get("properties", {}).items():
        yield from fields(whole, each, (*at, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields(whole, schema["additionalProperties"], (*at, "key"))
    if "items" in schema:
        yield from fields(whole, schema["items"], (*at, 0))
    yield from ((at, each) for each in kinds if each in ("string", "integer", "boolean"))


def put_at(body: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The body with the value at that place."""
    if not at:
        return value
    step, *rest = at
    if step == 0:
        return [put_at(body[0] if body else None, tuple(rest), value)]
    inside = dict(body) if isinstance(body, dict) else {}
    inside[step] = put_at(inside.get(step), tuple(rest), value)
    return inside
