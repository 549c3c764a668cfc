"""The catalog's and the KV store's answers as our nouns. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from milkrun.consul import keys, wire
from milkrun.model import (
    CommitMark,
    Health,
    Instance,
    InstanceId,
    ServiceName,
    VersionName,
    VersionWish,
    Wish,
)

_TTL_EXPIRED = "TTL expired"


def instances(entries: Iterable[wire.HealthEntry]) -> list[Instance]:
    """The instances of a health answer, by id. The version is the tag `version=...`, else the meta `version`,
    else `unversioned`.

    Nothing is checked here: what a registrant wrote is judged where it is used.
    """
    found = []
    for entry in entries:
        service = entry.service
        health, reason = aggregate(entry.checks)
        found.append(
            Instance(
                id=InstanceId(service.id),
                service=ServiceName(service.service),
                version=_version(service),
                address=service.address or entry.node.address,
                port=service.port,
                health=health,
                reason=reason,
                weight=(service.weights or {}).get("Passing", 1),
            )
        )
    return sorted(found, key=lambda instance: instance.id)


def aggregate(checks: Iterable[wire.Check]) -> tuple[Health, str]:
    """The health of an instance from all its checks, as Consul's AggregatedStatus: the worst one wins.

    A check that is critical only because its TTL ran out gives LOST, unless another one really failed.
    """
    order = list(Health)
    worst, reason = Health.PASSING, ""
    for check in checks:
        if check.check_id == "_node_maintenance" or check.check_id.startswith("_service_maintenance:"):
            state, why = Health.MAINTENANCE, check.notes
        elif check.status == "passing":
            state, why = Health.PASSING, ""
        elif check.status == "warning":
            state, why = Health.WARNING, check.output
        elif check.output.startswith(_TTL_EXPIRED):
            state, why = Health.LOST, check.output
        else:
            state, why = Health.CRITICAL, check.output
        if order.index(state) < order.index(worst):
            worst, reason = state, why
    return worst, reason


def wish(service: ServiceName, pairs: Iterable[wire.Pair]) -> Wish:
    """What the keys under `<service>/` ask for. Keys of another shape are not ours and are passed over."""
    fields: dict[VersionName, dict[str, float | int]] = {}
    maintenance = False
    mark: CommitMark | None = None
    for pair in pairs:
        if pair.key == keys.maintenance(service):
            maintenance = pair.data == b"true"
        elif pair.key == keys.commit(service):
            mark = _mark(pair.data)
        else:
            rest = pair.key.removeprefix(keys.wish_prefix(service))
            name, _, field = rest.partition("/")
            number = _number(pair.data)
            if name.startswith("version=") and field in ("weight", "replicas") and number is not None:
                version = VersionName(name.removeprefix("version="))
                fields.setdefault(version, {})[field] = int(number) if field == "replicas" else number
    versions = {name: msgspec.convert(value, VersionWish) for name, value in sorted(fields.items())}
    return Wish(versions=versions, maintenance=maintenance, mark=mark)


def _version(service: wire.Service) -> VersionName:
    for tag in service.tags or []:
        if tag.startswith("version="):
            return VersionName(tag.removeprefix("version="))
    return VersionName((service.meta or {}).get("version") or "unversioned")


def _number(data: bytes) -> float | None:
    try:
        number = float(data)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _mark(data: bytes) -> CommitMark | None:
    try:
        return msgspec.json.decode(data, type=CommitMark)
    except wire.UNREADABLE:
        return None
