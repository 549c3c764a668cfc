"""In which order services start and stop, from who needs whom. Pure.

`needs` maps each service to the services that it calls. A name that is no key of it is a service of which
nothing more is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from milkrun.model import ServiceName


def stopping_waves(needs: Mapping[ServiceName, Iterable[str]]) -> list[list[ServiceName]]:
    """The services in waves: each stops before all that it needs, directly or not.

    Services that need one another in a circle stop in one wave, and before what they need outside of it.
    """
    reached = {name: _reached(name, needs) for name in needs}
    left = sorted(needs)
    waves = []
    while left:
        # Whoever reaches one of a circle's services reaches all of them: only others keep a service waiting.
        wave = [
            name
            for name in left
            if all(name not in reached[other] or other in reached[name] for other in left)
        ]
        waves.append(wave)
        left = [name for name in left if name not in wave]
    return waves


def starting_order(needs: Mapping[ServiceName, Iterable[str]]) -> list[ServiceName]:
    """The services, each after what it needs (as far as they do not need one another)."""
    return [name for wave in reversed(stopping_waves(needs)) for name in wave]


def circle(service: ServiceName, needs: Mapping[ServiceName, Iterable[str]]) -> list[ServiceName]:
    """The shortest way by which the service needs itself: it, those between, and it again; empty without one."""
    ways: list[list[ServiceName]] = [[service]]
    seen: set[ServiceName] = set()
    for way in ways:
        for need in sorted(needs.get(way[-1], ())):
            name = ServiceName(need)
            if name == service:
                return [*way, service]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])  # the list grows while it is walked: shorter ways come first
    return []


def _reached(service: ServiceName, needs: Mapping[ServiceName, Iterable[str]]) -> set[ServiceName]:
    """All that the service needs, directly or not; itself only when it is in a circle."""
    found: set[ServiceName] = set()
    ahead = [service]
    while ahead:
        for need in needs.get(ahead.pop(), ()):
            name = ServiceName(need)
            if name not in found:
                found.add(name)
                ahead.append(name)
    return found
