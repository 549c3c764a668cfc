"""What rules say of a name, found by looking at all of them: the model that the real ones are compared with."""

from __future__ import annotations

from milkrun.registry.access.rules import Level, Resource, Rule


def naive(rules: list[Rule], resource: Resource, name: str) -> Level:
    """What the rules say of the name, found by looking at all of them."""
    speaking = [
        (not rule.prefix, len(rule.name), rule.level)
        for rule in rules
        if rule.resource is resource and (name.startswith(rule.name) if rule.prefix else name == rule.name)
    ]
    if not speaking:
        return Level.DENY
    nearest = max((exact, length) for exact, length, _ in speaking)
    said = {level for exact, length, level in speaking if (exact, length) == nearest}
    return Level.DENY if Level.DENY in said else max(said)
