"""What tokens and roles grant by themselves: policies by id, and who their holder is allowed to be. Pure.

The rules of identities and templates are Consul's. One that is meant for other datacenters grants nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from milkrun.registry.access import language, rules, templates
from milkrun.registry.access.rules import Rule
from milkrun.registry.nouns import DATACENTER

MANAGEMENT_ID = "00000000-0000-0000-0000-000000000001"


class NodeIdentity(msgspec.Struct, frozen=True):
    """The holder may register this node, in this datacenter."""

    node: str
    datacenter: str


class Template(msgspec.Struct, frozen=True):
    """The rules of a template (see templates.py), about this name, in these datacenters; in all for none."""

    template: str
    name: str = ""
    datacenters: list[str] = []


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """What is granted. A service named in `only_in` may be registered in those datacenters alone."""

    policies: list[str] = []
    services: list[str] = []
    only_in: dict[str, list[str]] = {}
    nodes: list[NodeIdentity] = []
    templates: list[Template] = []

    def own_rules(self) -> Iterator[Rule]:
        """What follows from the identities, and from the policy that every registry has."""
        if MANAGEMENT_ID in self.policies:
            yield from rules.EVERYTHING
        for service in self.services:
            if holds_here(self.only_in.get(service, [])):
                yield from rules.of_service(service)
        for identity in self.nodes:
            if holds_here([identity.datacenter]):
                yield from rules.of_node(identity.node)
        for each in self.templates:
            if holds_here(each.datacenters):
                yield from language.parsed(templates.rendered(each.template, each.name))


def holds_here(datacenters: list[str]) -> bool:
    """Whether what is meant for these datacenters holds in this one; none stands for all."""
    return not datacenters or DATACENTER in datacenters
