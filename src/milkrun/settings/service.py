"""What `services/<name>.toml` says: how to run, check and stop a service's instances."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

import msgspec

from milkrun import grammar
from milkrun.errors import InputRefused
from milkrun.model import CommitMark, ServiceName, service_name, version_name
from milkrun.settings import migration, needs, rollout, unit
from milkrun.settings.migration import MigrationSettings
from milkrun.settings.rollout import RolloutSettings
from milkrun.settings.toml import Document
from milkrun.settings.unit import DockerSettings

SECONDS_AT_MOST = 86_400.0
THRESHOLD_AT_MOST = 1000
SLOW_START_AT_MOST = 3600.0
SLOW_TIMES_AT_MOST = 1000.0

_BASE_PATH = re.compile(grammar.SEGMENTS)
_STICKY = re.compile(rf"|address|cookie:(?!milkrun-version-){grammar.COOKIE}|header:{grammar.HEADER}")
_OVERRIDE = re.compile(r"|cookie|header:(?i:x-(?!forwarded|real-ip|milkrun)[a-z0-9-]{1,58})")
_PROBE_PATH = re.compile(r"/[!-~]{0,1000}")


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probe: GET `path` each `interval_s`; `rise` good answers in a row: healthy; `fall` bad: not."""

    path: str = "/health"
    interval_s: float = 1.0
    timeout_s: float = 2.0
    rise: int = 2
    fall: int = 3


class StopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a stop may take: to see no more traffic, and then to end after `signal` before SIGKILL.

    `signal` left empty is SIGTERM, or what the container's image asks for.
    """

    drain_limit_s: float = 60.0
    stop_limit_s: float = 10.0
    signal: Literal["", "TERM", "INT", "QUIT", "HUP", "USR1", "USR2"] = ""


class EjectionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an instance is put aside for a while because of what traffic says of it, compared with its version's others.

    Over `failures_percent` of its requests failed; or none of them ended for `silent_s`; or its answers took
    `slow_times` as long.
    """

    enabled: bool = True
    failures_percent: float = 5.0
    silent_s: float = 10.0
    slow_times: float = 5.0


class TrafficSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How routers treat the service. Instances that speak HTTP may have all their paths below `path`.

    `protocol` is what the instances speak: HTTP/1.1, HTTP/2 without TLS from the first byte on (gRPC), or bytes of
    their own.

    `balance` is among the instances of a version: in turn, to the one with the fewest requests, or to the better
    of two taken at random. An instance that comes gets its part over `slow_start_s` seconds.

    `sticky` is what a user is known by, who then stays with a version: `cookie:NAME`, which the router gives to who
    has none, `header:NAME`, or the `address`; empty: each request is for itself. `override` is how a tester asks for a
    version: `header:NAME`, from the networks in `override_from`, or a signed `cookie`; empty: not at all.

    Of `mirror_percent` of the GETs the version `mirror` gets a copy, and nobody its answers.

    A request on which nothing moves for `idle_limit_s` is cut off. After a reload of the data plane, requests that it
    had have `reload_limit_s` to end.
    """

    protocol: Literal["http", "http2", "tcp"] = "http"
    path: str = ""
    balance: Literal["round-robin", "least-connections", "two-choices"] = "round-robin"
    slow_start_s: float = 0.0
    sticky: str = ""
    override: str = ""
    override_from: list[str] = []
    mirror: str = ""
    mirror_percent: float = 100.0
    ejection: EjectionSettings = EjectionSettings()
    idle_limit_s: float = 60.0
    reload_limit_s: float = 600.0


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `services/<name>.toml`.

    An instance is a process of `command` or a container of `docker.image`. `command` is a program with its
    arguments, started without a shell in the environment's folder; in each argument `{python}`, `{service}`,
    `{version}`, `{instance}`, `{address}` and `{port}` are filled in. It finds the path of each file in `secrets`
    in the variable NAME_FILE. `needs` names the services it calls: they are started before it and stopped after
    it; it is started when each `tcp://HOST:PORT` of `wait_for` accepts. `hosts` limits where it runs (empty:
    anywhere). `example` is a path worth a try, which `milkrun up` shows.
    """

    command: list[str] = []
    docker: DockerSettings = DockerSettings()
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    needs: list[str] = []
    wait_for: list[str] = []
    hosts: list[str] = []
    example: str = ""
    health: HealthSettings = HealthSettings()
    stop: StopSettings = StopSettings()
    traffic: TrafficSettings = TrafficSettings()
    rollout: RolloutSettings = RolloutSettings()
    migration: MigrationSettings = MigrationSettings()


class PublishedService(msgspec.Struct, frozen=True, kw_only=True):
    """A service's settings in the KV store, with the commit they came from."""

    mark: CommitMark
    settings: ServiceSettings


def name_of(file: str) -> ServiceName:
    """The service that a file `services/<name>.toml` is about; raises InputRefused when that is no name."""
    try:
        return service_name(PurePosixPath(file).stem)
    except InputRefused as error:
        raise InputRefused(error.reason, file=file, remedy=error.remedy) from error


def load(data: bytes, file: str) -> ServiceSettings:
    """The settings that a `services/<name>.toml` states; raises InputRefused with the file and the line."""
    service = name_of(file)
    document = Document(data, ServiceSettings, file)
    settings = document.value
    unit.check(document)
    for number, need in enumerate(settings.needs):
        document.check(("needs", number), service_name, need)
        document.require(("needs", number), need != service, "a service does not need itself")
        document.require(
            ("needs", number), settings.needs.index(need) == number, f"`{need}` stands there twice"
        )
    for number, host in enumerate(settings.hosts):
        document.check(("hosts", number), service_name, host)
    path = settings.health.path
    document.require(
        ("health", "path"), bool(_PROBE_PATH.fullmatch(path)), "has to be a URL's path, as `/health`"
    )
    example = settings.example
    document.require(
        ("example",), not example or bool(_PROBE_PATH.fullmatch(example)), "has to be a URL's path, as `/`"
    )
    _check_traffic(document)
    _check_ejection(document)
    for field in ("idle_limit_s", "reload_limit_s"):
        _check_limit(document, field)
    for field in ("interval_s", "timeout_s"):
        _check_seconds(document, ("health", field), getattr(settings.health, field))
    for field in ("drain_limit_s", "stop_limit_s"):
        _check_seconds(document, ("stop", field), getattr(settings.stop, field))
    for field in ("rise", "fall"):
        number = getattr(settings.health, field)
        document.require(
            ("health", field),
            1 <= number <= THRESHOLD_AT_MOST,
            f"has to be 1 to {THRESHOLD_AT_MOST}, not {number}",
        )
    rollout.check(document)
    migration.check(document)
    return settings


def check_circle(
    services: Mapping[ServiceName, ServiceSettings], name: ServiceName, data: bytes, file: str
) -> None:
    """Raises InputRefused when the service needs itself by way of others. `data` is its file's text."""
    way = needs.circle(name, {one: settings.needs for one, settings in services.items()})
    if way:
        document = Document(data, ServiceSettings, file)
        document.refuse(
            ("needs", document.value.needs.index(way[1])),
            f"a circle, {' -> '.join(way)}: none of them could start first",
            remedy="take one of these names out of `needs`; a service may call another without it",
        )


def _check_traffic(document: Document[ServiceSettings]) -> None:
    traffic = document.value.traffic
    tcp = traffic.protocol == "tcp"
    path, sticky, override = (("traffic", key) for key in ("path", "sticky", "override"))
    document.require(
        path,
        not traffic.path or bool(_BASE_PATH.fullmatch(traffic.path)),
        "has to be a path without an end slash, as `/v1`",
    )
    document.require(
        path, not (traffic.path and tcp), "is for instances that speak HTTP: a TCP service has no paths"
    )
    document.require(
        sticky,
        bool(_STICKY.fullmatch(traffic.sticky)),
        "has to be `address`, `cookie:NAME` or `header:NAME`, with a name of the router's own for a cookie",
    )
    document.require(
        sticky, not tcp or traffic.sticky in ("", "address"), "of a TCP service can only be `address`"
    )
    document.require(
        override,
        bool(_OVERRIDE.fullmatch(traffic.override)),
        "has to be `cookie`, or `header:X-NAME` with a header that nobody else uses",
    )
    document.require(override, not (tcp and traffic.override), "is for services that speak HTTP")
    by_header = traffic.override.startswith("header:")
    document.require(
        ("traffic", "override_from") if traffic.override_from else override,
        by_header == bool(traffic.override_from),
        "by header needs `override_from`, the networks from where it counts, and only that does",
    )
    for number, text in enumerate(traffic.override_from):
        document.check(("traffic", "override_from", number), _check_network, text)
    if traffic.mirror:
        document.check(("traffic", "mirror"), version_name, traffic.mirror)
    document.require(("traffic", "mirror"), not (tcp and traffic.mirror), "is for services that speak HTTP")
    document.require(
        ("traffic", "mirror_percent"),
        0.01 <= traffic.mirror_percent <= 100,
        f"has to be 0.01 to 100, not {traffic.mirror_percent:g}",
    )
    document.require(
        ("traffic", "slow_start_s"),
        0 <= traffic.slow_start_s <= SLOW_START_AT_MOST,
        f"has to be 0 to {SLOW_START_AT_MOST:.0f} seconds, not {traffic.slow_start_s:g}",
    )


def _check_limit(document: Document[ServiceSettings], field: str) -> None:
    seconds = getattr(document.value.traffic, field)
    document.require(
        ("traffic", field),
        1 <= seconds <= SECONDS_AT_MOST,
        f"has to be 1 to {SECONDS_AT_MOST:.0f} seconds, not {seconds:g}",
    )


def _check_ejection(document: Document[ServiceSettings]) -> None:
    ejection = document.value.traffic.ejection
    for key, least, most in (
        ("failures_percent", 0.1, 100.0),
        ("silent_s", 1.0, SECONDS_AT_MOST),
        ("slow_times", 1.5, SLOW_TIMES_AT_MOST),
    ):
        value = getattr(ejection, key)
        document.require(
            ("traffic", "ejection", key),
            least <= value <= most,
            f"has to be {least:g} to {most:g}, not {value:g}",
        )


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise InputRefused(f"{text[:80]!r} is not a network", remedy="for example 10.1.0.0/16") from error


def _check_seconds(document: Document[ServiceSettings], path: tuple[str, str], seconds: float) -> None:
    document.require(
        path,
        0 < seconds <= SECONDS_AT_MOST,
        f"has to be more than 0 seconds and at most {SECONDS_AT_MOST:.0f}, not {seconds:g}",
    )
