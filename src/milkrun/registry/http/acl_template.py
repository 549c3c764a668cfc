"""/v1/acl/templated-policy: the policies that only lack a name, as newer Consuls show them."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import msgspec

from milkrun.registry.access.rules import Level
from milkrun.registry.access.templates import TEMPLATES, rendered
from milkrun.registry.engine import Engine
from milkrun.registry.http.acl import guarded
from milkrun.registry.http.acl_grants import TemplateBody, VariablesBody, template_of
from milkrun.registry.http.bodies import decode
from milkrun.registry.http.health import named
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.refusal import Refused

_NAMED = json.dumps(
    {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}, indent=1
)


async def templates(_: Engine, __: Request) -> Reply:
    """All templates, by name."""
    return Reply.json({name: _shown(name) for name in TEMPLATES})


async def template(_: Engine, request: Request) -> Reply:
    """One template with its text."""
    name = named(request, "templated policy name")
    if name not in TEMPLATES:
        raise Refused(404, "Invalid templated policy name")
    return Reply.json(_shown(name))


async def preview(_: Engine, request: Request) -> Reply:
    """The policy that the template becomes with what it lacks."""
    variables = decode(await request.body(), VariablesBody, what="Bad request: Failed to decode request body")
    meant = template_of(TemplateBody(named(request, "templated policy name"), variables))
    text = rendered(meant.template, meant.name)
    digest = hashlib.sha256(msgspec.json.encode([meant.template, meant.name])).digest()
    name = f"synthetic-policy-{digest[:16].hex()}"
    return Reply.json(
        {
            "ID": str(uuid.UUID(bytes=digest[:16])),
            "Name": name,
            "Description": f"synthetic policy generated from templated policy: {meant.template}",
            "Rules": text,
        }
    )


def _shown(name: str) -> dict[str, Any]:
    kind = TEMPLATES[name]
    return {
        "TemplateName": name,
        "Schema": _NAMED if kind.named else "",
        "Template": kind.text,
        "Description": kind.description,
    }


_read = guarded(Level.READ)

ROUTES = (
    Route("GET", "/v1/acl/templated-policies", _read(templates), "acl", "read"),
    Route("GET", "/v1/acl/templated-policy/name/", _read(template), "acl", "read"),
    Route("POST", "/v1/acl/templated-policy/preview/", _read(preview), "acl", "read"),
)
