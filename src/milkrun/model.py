"""The nouns that all rooms share. Values only: nothing here reads, waits or writes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NewType

import msgspec

from milkrun.errors import InputRefused
from milkrun.latency import merged

ServiceName = NewType("ServiceName", str)
VersionName = NewType("VersionName", str)
InstanceId = NewType("InstanceId", str)
RouterId = NewType("RouterId", str)
CommitId = NewType("CommitId", str)

SHARE_SLOTS = 10_000
"""A share is counted in slots of 0.01 %."""

DATABASE_NAME_BYTES = 63
"""PostgreSQL cuts off an application_name behind so many."""

VERSIONS_AT_MOST = 24
"""Versions of one service that may be known at once: one change then fits in one registry transaction of 64
operations, and each version finds a lane."""

_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9._+-]{1,128}")
_INSTANCE = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_BRANCH = re.compile(r"[A-Za-z0-9_+-]+([./][A-Za-z0-9_+-]+)*")


class Health(StrEnum):
    """What the registry says of an instance, in the order in which one overrides the next."""

    MAINTENANCE = "maintenance"
    CRITICAL = "critical"
    LOST = "lost"
    """Critical only because nobody reported in time: the sensor is gone, the instance perhaps not."""
    WARNING = "warning"
    PASSING = "passing"


_HEALTHY = (Health.PASSING, Health.WARNING)


class Instance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One running copy of a service version, as the catalog knows it.

    `reason` is the check output or the maintenance reason, for people only.
    """

    id: InstanceId
    service: ServiceName
    version: VersionName
    address: str
    port: int
    health: Health
    reason: str = ""
    weight: int = 1

    @property
    def healthy(self) -> bool:
        """Whether the registry would route to it: passing, or warning as Consul counts it."""
        return self.health in _HEALTHY


class VersionWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What git asks of one version: its weight (any number ≥ 0) and how many instances to run."""

    weight: float | None = None
    replicas: int | None = None


class CommitMark(msgspec.Struct, frozen=True, kw_only=True):
    """Which commit a service's keys came from.

    `generation` is the number of commits up to and including it, so it only grows while history only grows.
    """

    commit: CommitId
    generation: int
    time: float = 0.0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What git asks of a service. `mark` is None when no gitsync ever wrote it (keys put by hand)."""

    versions: dict[VersionName, VersionWish] = {}
    maintenance: bool = False
    mark: CommitMark | None = None

    @property
    def weights(self) -> dict[VersionName, float]:
        """The versions that have a weight; empty when the service spreads over all healthy instances."""
        return {name: wish.weight for name, wish in self.versions.items() if wish.weight is not None}


class InstanceTraffic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a router last saw of one instance: `state` is serving, draining or drained.

    `requests` and `failures` are counted since the router's start; a try that was made again elsewhere is among them.
    `mean_ms` is the mean until the head of an answer, over its last about thousand, 0 unknown. All three stay 0 where
    the router does not look at each instance: a version with many of them, or a data plane that does not say.
    """

    state: str
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    mean_ms: float = 0.0


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was counted of some requests.

    `answers` are by class as the client got them (`2xx`; `other` is none, because the client left), and empty
    for a service that does not speak HTTP. `failures` are those of class 5xx, and connections that failed.
    `latency` is a histogram as latency.py has them, from the request's arrival to the head of an instance's
    answer: what the router had to answer itself is not in it.
    """

    requests: int = 0
    failures: int = 0
    answers: dict[str, int] = {}
    bytes_in: int = 0
    bytes_out: int = 0
    latency: dict[int, int] = {}

    @staticmethod
    def together(figures: Iterable[Figures]) -> Figures:
        """What was counted of all their requests."""
        figures = list(figures)
        answers: dict[str, int] = {}
        for one in figures:
            for outcome, count in one.answers.items():
                answers[outcome] = answers.get(outcome, 0) + count
        return Figures(
            requests=sum(one.requests for one in figures),
            failures=sum(one.failures for one in figures),
            answers=dict(sorted(answers.items())),
            bytes_in=sum(one.bytes_in for one in figures),
            bytes_out=sum(one.bytes_out for one in figures),
            latency=merged(one.latency for one in figures),
        )


class VersionTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What a router saw of one version.

    `share` is in slots of 0.01 %. `total` is since the router started, `window` since the shares last changed,
    so that observed shares can be compared with the wish; `in_flight` is of this moment.
    """

    share: int
    in_flight: int = 0
    total: Figures = Figures()
    window: Figures = Figures()


class RouterReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one router serves, written under its session: it vanishes with the router.

    `catalog_index` is the X-Consul-Index of the health answer that the served state came from: an instance
    put in maintenance before that index and not listed here (or drained) gets no request from this router.
    `held` says why the wish of git is not served, empty when it is; `alarms` what else a person should know.
    `former` says what a data plane's process from before a reload still has to do, and until when. `since` is when
    the router began to stand where it does, `unequal_since` when the data plane began to differ
    from the wish, 0 while it does not (both in seconds since 1970).
    """

    router: RouterId
    service: ServiceName
    host: str
    listen: str
    stats: str
    commit: CommitId | None
    generation: int
    applied_at: float
    catalog_index: int
    reloads: int = 0
    since: float = 0.0
    unequal_since: float = 0.0
    drift: list[str] = []
    held: list[str] = []
    alarms: list[str] = []
    former: list[str] = []
    versions: dict[VersionName, VersionTraffic] = {}
    instances: dict[InstanceId, InstanceTraffic] = {}
    data_plane: str = ""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A file that gitsync would not publish, and why. `line` counts from 1; 0 means the whole file."""

    file: str
    line: int
    reason: str
    commit: CommitId


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What gitsync last saw and did, written under its session. `trouble` is empty when git can be read."""

    repository: str
    branch: str
    commit: CommitId | None
    generation: int
    synced_at: float
    refused: list[Refusal] = []
    trouble: str = ""


class UnitReport(msgspec.Struct, frozen=True, kw_only=True):
    """One instance that an agent runs.

    `state` is starting, healthy, unhealthy, draining, backoff or stopped.
    """

    instance: InstanceId
    service: ServiceName
    version: VersionName
    slot: int
    address: str
    port: int
    state: str
    pid: int = 0
    restarts: int = 0
    log: str = ""
    reason: str = ""
    remedy: str = ""


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent runs, written under its session. `alarms` is what a person should know besides.

    `since` is when this agent started (seconds since 1970): an older report is of one that has ended.
    """

    host: str
    since: float = 0.0
    units: list[UnitReport] = []
    alarms: list[str] = []


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout engine. The one that holds the lock `acts`, with an `epoch` of its own; the others stand by."""

    host: str
    acts: bool
    epoch: int = 0
    alarms: list[str] = []


def service_name(text: str) -> ServiceName:
    """`text` as a service name, which is also a DNS label; anything else is refused."""
    if not _SERVICE.fullmatch(text):
        raise InputRefused(
            f"{text[:80]!r} is not a service name",
            remedy="use lower-case letters, digits and inner hyphens, 63 at most",
        )
    return ServiceName(text)


def version_name(text: str) -> VersionName:
    """`text` as a version name; anything else is refused."""
    if not _VERSION.fullmatch(text):
        raise InputRefused(
            f"{text[:80]!r} is not a version", remedy="use letters, digits and . _ + - (128 at most)"
        )
    return VersionName(text)


def instance_id(text: str) -> InstanceId:
    """`text` as an instance id that can stand in a proxy's configuration; anything else is refused."""
    if not _INSTANCE.fullmatch(text):
        raise InputRefused(
            f"{text[:80]!r} is not an instance id", remedy="use letters, digits and . _ : - (200 at most)"
        )
    return InstanceId(text)


def application_name(service: ServiceName, version: VersionName, instance: str) -> str:
    """What an instance calls itself to its database: names have no slash, so no version is taken for another."""
    return f"{service}/{version}/{instance}".encode()[:DATABASE_NAME_BYTES].decode(errors="ignore")


def branch_name(text: str) -> str:
    """`text` as a git branch's name, in the letters that need no thought; anything else is refused."""
    if len(text) > 200 or text.startswith("-") or text.endswith(".lock") or not _BRANCH.fullmatch(text):
        raise InputRefused(
            f"{text[:80]!r} is not a branch's name", remedy="use letters, digits and _ + - with inner . and /"
        )
    return text


def endpoint(address: str, port: int) -> tuple[str, int]:
    """The address re-written from its parsed form, and the port; names, sockets and port 0 are refused."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise InputRefused(f"{address[:80]!r} is not an IP address") from error
    if parsed.is_unspecified or getattr(parsed, "scope_id", None):
        raise InputRefused(f"{address} is not an address that a request can be sent to")
    if not 1 <= port <= 65535:
        raise InputRefused(f"{port} is not a port")
    return str(parsed), port


def host_port(text: str) -> tuple[str, int]:
    """`HOST:PORT` with an IP address (IPv6 in brackets) or `localhost`, as a pair; all else is refused."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise InputRefused(f"{text[:80]!r} is not HOST:PORT", remedy="for example 127.0.0.1:8202")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError as error:
        raise InputRefused(f"{text[:80]!r} has no IP address before the port") from error
    if getattr(parsed, "scope_id", None):  # it may be any text
        raise InputRefused(f"{text[:80]!r} has an address of one network card only")
    host = str(parsed)
    if not 1 <= int(port) <= 65535:
        raise InputRefused(f"{text[:80]!r} has no port between 1 and 65535")
    return host, int(port)
