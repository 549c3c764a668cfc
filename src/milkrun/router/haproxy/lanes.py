"""Which version has which lane. Pure.

HAProxy 2.8 cannot make a backend at run time, so a service has a few and its versions take turns in them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from milkrun.errors import DataPlaneError
from milkrun.model import VersionName
from milkrun.router.haproxy.encode import LANES_AT_MOST

FIRST_LANES = 8


def assign(taken: Mapping[VersionName, int], needed: Collection[VersionName]) -> dict[VersionName, int]:
    """A lane for each version in `needed`: the one it has, or the lowest that nobody needed has."""
    lanes = {version: number for version, number in taken.items() if version in needed}
    free = iter(sorted(set(range(LANES_AT_MOST)) - set(lanes.values())))
    for version in sorted(set(needed) - lanes.keys()):
        number = next(free, None)
        if number is None:
            raise DataPlaneError(
                f"{len(needed)} versions do not fit in {LANES_AT_MOST} lanes",
                remedy="take versions that are not used any more out of the deploy file",
            )
        lanes[version] = number
    return lanes


def count(lanes: Mapping[VersionName, int], now: int) -> int:
    """How many lanes the file needs: what it has, doubled until all fit (growing takes a reload)."""
    needed = max(lanes.values(), default=0) + 1
    while now < needed:
        now *= 2
    return min(now, LANES_AT_MOST)
