"""What a token or a role is to grant, read from its body and shown in answers, both as Consul has them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from milkrun.registry.access.grants import Grants, NodeIdentity, Template
from milkrun.registry.access.templates import TEMPLATES
from milkrun.registry.access.tokens import Policy, Tokens
from milkrun.registry.http.bodies import folded
from milkrun.registry.refusal import Refused

LINKS_AT_MOST = 128
DESCRIPTION_AT_MOST = 1024
_IDENTITY = re.compile(r"[a-z0-9]([a-z0-9_-]{0,254}[a-z0-9])?")
_SIGNS = "Only alphanumeric characters, '-' and '_' are allowed"


class LinkBody(msgspec.Struct, rename=folded):
    """A policy or a role, by its id or its name."""

    id: str = ""
    name: str = ""


class ServiceIdentityBody(msgspec.Struct, rename=folded):
    """A service that the holder may register."""

    service_name: str = ""
    datacenters: list[str] = []


class NodeIdentityBody(msgspec.Struct, rename=folded):
    """A node that the holder may register."""

    node_name: str = ""
    datacenter: str = ""


class VariablesBody(msgspec.Struct, rename=folded):
    """What a template lacks."""

    name: str = ""


class TemplateBody(msgspec.Struct, rename=folded):
    """A template with what it lacks."""

    template_name: str = ""
    template_variables: VariablesBody = msgspec.field(default_factory=VariablesBody)
    datacenters: list[str] = []


class GrantsBody(msgspec.Struct, rename=folded):
    """The part of a body that says what is granted."""

    policies: list[LinkBody] = []
    service_identities: list[ServiceIdentityBody] = []
    node_identities: list[NodeIdentityBody] = []
    templated_policies: list[TemplateBody] = []


def granted(known: Tokens, body: GrantsBody, what: str, *, local: bool = False) -> dict[str, Any]:
    """The fields of Grants that the body asks for; `what` it is for. Raises Refused for what cannot be granted."""
    lists: tuple[list[Any], ...] = (
        body.policies, body.service_identities, body.node_identities, body.templated_policies
    )  # fmt: skip
    if max(map(len, lists)) > LINKS_AT_MOST:
        raise Refused(400, f"Invalid {what.title()}: more than {LINKS_AT_MOST} policies or identities")
    services: dict[str, list[str]] = {}
    for each in body.service_identities:
        name = _service(each, what, local=local)
        before = services.get(name, each.datacenters)
        # Named twice, it holds wherever one of them does; none stands for all.
        both = before and each.datacenters and sorted({*before, *each.datacenters})
        services[name] = both or []
    return {
        "policies": list(dict.fromkeys(_policy(known, each).id for each in body.policies)),
        "services": list(services),
        "only_in": {name: datacenters for name, datacenters in services.items() if datacenters},
        "nodes": [_node(each, what) for each in body.node_identities],
        "templates": [template_of(each) for each in body.templated_policies],
    }


def shown_grants(known: Tokens, grants: Grants) -> dict[str, Any]:
    """The grants as an answer has them: without policies that are gone, and without most of what is empty."""
    links = [
        {"ID": found.id, "Name": found.name} for each in grants.policies if (found := known.policy(each))
    ]
    services = [
        {"ServiceName": name, **({"Datacenters": grants.only_in[name]} if name in grants.only_in else {})}
        for name in grants.services
    ]
    shown: dict[str, Any] = {"Policies": links, "ServiceIdentities": services}
    if grants.nodes:
        shown["NodeIdentities"] = [
            {"NodeName": each.node, "Datacenter": each.datacenter} for each in grants.nodes
        ]
    if grants.templates:
        shown["TemplatedPolicies"] = [_shown_template(each) for each in grants.templates]
    return shown


def template_of(body: TemplateBody) -> Template:
    """The template that is meant, with a name where it takes one. Raises Refused (400) for another one."""
    kind = TEMPLATES.get(body.template_name)
    if kind is None:
        raise Refused(
            400,
            f'no such ACL templated policy with Name "{body.template_name[:128]}"; known here: '
            f"{', '.join(TEMPLATES)}",
        )
    name = body.template_variables.name
    if kind.named and not _IDENTITY.fullmatch(name):
        raise Refused(400, f'templated policy "{body.template_name}" takes a name. {_SIGNS}')
    return Template(body.template_name, name if kind.named else "", body.datacenters)


def _policy(known: Tokens, link: LinkBody) -> Policy:
    found = known.policy(link.id) if link.id else known.policy_named(link.name)
    if found is None:
        raise Refused(500, f"No such ACL policy with {_of(link)}")
    return found


def role_id(known: Tokens, link: LinkBody) -> str:
    """The id of the role that is meant. Raises Refused (500) when there is none."""
    found = known.roles.get(link.id) if link.id else known.role_named(link.name)
    if found is None:
        raise Refused(500, f"No such ACL role with {_of(link)}")
    return found.id


def _of(link: LinkBody) -> str:
    return f'{"ID" if link.id else "name"} "{(link.id or link.name)[:128]}"'


def _service(body: ServiceIdentityBody, what: str, *, local: bool) -> str:
    name = body.service_name
    if not name:
        raise Refused(500, f"Service identity is missing the service name field on this {what}")
    if local and body.datacenters:
        raise Refused(
            500, f'Service identity "{name[:128]}" cannot specify a list of datacenters on a local token'
        )
    if not _IDENTITY.fullmatch(name):
        raise Refused(500, f'Service identity "{name[:128]}" has an invalid name. {_SIGNS}')
    return name


def _node(body: NodeIdentityBody, what: str) -> NodeIdentity:
    if not body.node_name:
        raise Refused(500, f"Node identity is missing the node name field on this {what}")
    if not body.datacenter:
        raise Refused(500, f"Node identity is missing the datacenter field on this {what}")
    if not _IDENTITY.fullmatch(body.node_name):
        raise Refused(500, f"Node identity has an invalid name. {_SIGNS}")
    return NodeIdentity(body.node_name, body.datacenter)


def _shown_template(each: Template) -> dict[str, Any]:
    shown: dict[str, Any] = {"TemplateName": each.template}
    if each.name:
        shown["TemplateVariables"] = {"name": each.name}
    if each.datacenters:
        shown["Datacenters"] = each.datacenters
    return shown
