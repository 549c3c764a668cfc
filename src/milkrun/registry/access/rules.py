"""What a policy allows: rules on names and on prefixes of names, of which the most exact one decides. Pure.

Kinds and precedence are Consul's: a rule on a name beats those on its prefixes, a longer prefix beats a shorter
one; where two policies of a token speak of the same name, deny beats write, and write beats read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum, StrEnum

import msgspec


class Level(IntEnum):
    """What a rule grants. Each level holds the ones below it."""

    DENY = 0
    READ = 1
    WRITE = 2


class Resource(StrEnum):
    """What a rule speaks of. The first seven have names, of the last three there is one each."""

    AGENT = "agent"
    EVENT = "event"
    KEY = "key"
    NODE = "node"
    QUERY = "query"
    SERVICE = "service"
    SESSION = "session"
    ACL = "acl"
    KEYRING = "keyring"
    OPERATOR = "operator"


SINGLE = frozenset({Resource.ACL, Resource.KEYRING, Resource.OPERATOR})
"""A rule on one of these is kept as one on the prefix of all names."""


class Rule(msgspec.Struct, frozen=True):
    """One line of a policy. With `prefix` it speaks of every name that starts with `name`."""

    resource: Resource
    name: str
    level: Level
    prefix: bool = False


class Rules:
    """Rules that apply together."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[tuple[Resource, str], Level] = {}
        self._prefixes: dict[tuple[Resource, str], Level] = {}
        for rule in rules:
            table = self._prefixes if rule.prefix else self._exact
            place = rule.resource, rule.name
            table[place] = _merged(table.get(place), rule.level)
        self._lengths = sorted({len(name) for _, name in self._prefixes}, reverse=True)

    def level(self, resource: Resource, name: str = "") -> Level:
        """What is granted on this name; nothing where no rule speaks of it."""
        found = self._exact.get((resource, name))
        if found is not None:
            return found
        for length in self._lengths:
            if length <= len(name):
                found = self._prefixes.get((resource, name[:length]))
                if found is not None:
                    return found
        return Level.DENY

    def level_below(self, resource: Resource, prefix: str) -> Level:
        """What is granted on every name that starts with `prefix`: the least of what any rule below it says."""
        own = self._of_prefix(resource, prefix)
        inside = [
            level
            for table in (self._exact, self._prefixes)
            for (of, name), level in table.items()
            if of is resource and name.startswith(prefix)
        ]
        return min([own, *inside])

    def _of_prefix(self, resource: Resource, prefix: str) -> Level:
        for length in self._lengths:
            if length <= len(prefix):
                found = self._prefixes.get((resource, prefix[:length]))
                if found is not None:
                    return found
        return Level.DENY


def _merged(known: Level | None, other: Level) -> Level:
    if known is None:
        return other
    return Level.DENY if Level.DENY in (known, other) else max(known, other)


def on_all(levels: Mapping[Resource, Level]) -> list[Rule]:
    """The rules that grant these levels whatever the name."""
    return [Rule(resource, "", level, prefix=True) for resource, level in levels.items()]


EVERYTHING = on_all(dict.fromkeys(Resource, Level.WRITE))
ALL_READS = on_all({each: Level.READ for each in Resource if each not in (Resource.ACL, Resource.KEYRING)})
"""Who holds what tokens is not among them."""


def of_service(name: str) -> list[Rule]:
    """What Consul grants a service identity: to register itself, and to find others."""
    return [
        Rule(Resource.SERVICE, name, Level.WRITE),
        Rule(Resource.SERVICE, f"{name}-sidecar-proxy", Level.WRITE),
        Rule(Resource.SERVICE, "", Level.READ, prefix=True),
        Rule(Resource.NODE, "", Level.READ, prefix=True),
    ]


def of_node(name: str) -> list[Rule]:
    """What Consul grants a node identity: to register itself, and to find services."""
    return [
        Rule(Resource.NODE, name, Level.WRITE),
        Rule(Resource.SERVICE, "", Level.READ, prefix=True),
    ]
