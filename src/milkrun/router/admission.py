"""Which registered instances may stand in a data plane: each is judged alone, one bad one stops no other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from operator import attrgetter

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import (
    VERSIONS_AT_MOST,
    Health,
    Instance,
    InstanceId,
    VersionName,
    Wish,
    endpoint,
    instance_id,
    version_name,
)

RESERVED = frozenset({"spill"})
"""Names that a data plane gives to servers of its own."""

ALARMS_AT_MOST = 20
_WITHDRAWN = (Health.MAINTENANCE, Health.CRITICAL)
_REMEMBERED = 65_536
_ID = attrgetter("id")


def valid(instances: Collection[Instance], alarms: list[str]) -> list[Instance]:
    """The instances whose every word may stand in a data plane, each id once and by id; the others are left out, one
    by one (I3, I7).
    """
    found: dict[InstanceId, Instance] = {}
    for instance in _in_order(instances):
        try:
            admitted = _admitted(instance)
        except InputRefused as refusal:
            alarms.append(f"instance {instance.id[:80]!r} is left out: {refusal.reason}")
            continue
        if other := found.get(admitted.id):
            alarms.append(
                f"instance {instance.id!r} is in the catalog twice: the one at {admitted.address}:{admitted.port}"
                f" is left out, the one at {other.address}:{other.port} stays"
            )
            continue
        found[admitted.id] = admitted
    return list(found.values())


def _in_order(instances: Collection[Instance]) -> list[Instance]:
    """By id; what else counts only does when one is there twice."""
    twice = len({instance.id for instance in instances}) < len(instances)
    return sorted(instances, key=_preferred if twice else _ID)


def _preferred(instance: Instance) -> tuple[str, bool, str, int]:
    """Of two with one id the healthy one comes first, else always the same one."""
    return instance.id, not instance.healthy, instance.address, instance.port


@lru_cache(_REMEMBERED)
def _admitted(instance: Instance) -> Instance:
    """The instance as the data plane may have it; raises InputRefused."""
    instance_id(instance.id)
    version_name(instance.version)
    if instance.id in RESERVED:
        raise InputRefused("the data plane has a server of its own with this name")
    address, port = endpoint(instance.address, instance.port)
    weight = min(max(instance.weight, 1), 256)
    return msgspec.structs.replace(instance, address=address, port=port, weight=weight)


def withdrawn(instances: Iterable[Instance]) -> frozenset[InstanceId]:
    """The instances that the catalog takes out of service, also those whose other words are refused."""
    return frozenset(instance.id for instance in instances if instance.health in _WITHDRAWN)


def fitting(
    instances: list[Instance], wish: Wish, there: Collection[VersionName], alarms: list[str]
) -> list[Instance]:
    """The instances of as many versions as a data plane can hold: weighted ones first, then those `there`."""
    versions = {instance.version for instance in instances}
    if len(versions) <= VERSIONS_AT_MOST:
        return instances
    weights = wish.weights

    def rank(name: VersionName) -> tuple[bool, bool, bool, str]:
        return not weights.get(name), name not in weights, name not in there, name

    ordered = sorted(versions, key=rank)
    kept, left = set(ordered[:VERSIONS_AT_MOST]), ordered[VERSIONS_AT_MOST:]
    alarms.append(
        f"{len(versions)} versions are registered and {VERSIONS_AT_MOST} fit; left out: {', '.join(left[:5])}"
        + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    )
    return [instance for instance in instances if instance.version in kept]


def told(alarms: list[str]) -> list[str]:
    """The alarms as a report can hold them: thousands of bad instances are one story."""
    if len(alarms) <= ALARMS_AT_MOST:
        return alarms
    return [*alarms[:ALARMS_AT_MOST], f"and {len(alarms) - ALARMS_AT_MOST} more like these"]
