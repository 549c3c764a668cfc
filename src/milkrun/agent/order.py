"""In which order services start and stop, from who needs whom. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from milkrun.model import ServiceName


def stopping_waves(needs: Mapping[ServiceName, Iterable[str]]) -> list[list[ServiceName]]:
    """The services in waves: each stops before what it needs. A circle stops at once, in one wave."""
    left = dict(needs)
    waves = []
    while left:
        needed = {other for name, others in left.items() for other in others if other != name}
        wave = sorted(name for name in left if name not in needed) or sorted(left)
        waves.append(wave)
        left = {name: others for name, others in left.items() if name not in wave}
    return waves


def starting_order(needs: Mapping[ServiceName, Iterable[str]]) -> list[ServiceName]:
    """The services, each after what it needs (as far as they do not need one another)."""
    return [name for wave in reversed(stopping_waves(needs)) for name in wave]
