"""What `services/<name>.toml` says: how to run, check and stop a service's instances."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import CommitMark, ServiceName, service_name
from milkrun.settings import needs
from milkrun.settings.toml import Document

SECONDS_AT_MOST = 86_400.0
THRESHOLD_AT_MOST = 1000

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){1,20}")
_PROBE_PATH = re.compile(r"/[!-~]{0,1000}")


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probe: GET `path` each `interval_s`; `rise` good answers in a row: healthy; `fall` bad: not."""

    path: str = "/health"
    interval_s: float = 1.0
    timeout_s: float = 2.0
    rise: int = 2
    fall: int = 3


class StopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a stop may take: to see no more traffic, and then to end after SIGTERM before SIGKILL."""

    drain_limit_s: float = 60.0
    stop_limit_s: float = 10.0


class TrafficSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How routers treat the service. Instances that speak HTTP may have all their paths below `path`.

    `protocol` is what the instances speak: HTTP/1.1, HTTP/2 without TLS from the first byte on (gRPC), or bytes of
    their own.

    `balance` is among the instances of a version: in turn, to the one with the fewest requests, or to the better
    of two taken at random.
    """

    protocol: Literal["http", "http2", "tcp"] = "http"
    path: str = ""
    balance: Literal["round-robin", "least-connections", "two-choices"] = "round-robin"


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `services/<name>.toml`.

    `command` is a program with its arguments, started without a shell in the environment's folder; in each
    argument `{python}`, `{service}`, `{version}`, `{instance}`, `{address}` and `{port}` are filled in.
    `needs` names the services it calls: they are started before it and stopped after it. `hosts` limits where
    it runs (empty: anywhere). `example` is a path worth a try, which `milkrun up` shows.
    """

    command: list[str]
    env: dict[str, str] = {}
    needs: list[str] = []
    hosts: list[str] = []
    example: str = ""
    health: HealthSettings = HealthSettings()
    stop: StopSettings = StopSettings()
    traffic: TrafficSettings = TrafficSettings()


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
    _check_command(document)
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
    document.require(
        ("traffic", "path"),
        not settings.traffic.path or bool(_BASE_PATH.fullmatch(settings.traffic.path)),
        "has to be a path without an end slash, as `/v1`",
    )
    document.require(
        ("traffic", "path"),
        not settings.traffic.path or settings.traffic.protocol != "tcp",
        "is for instances that speak HTTP: a TCP service has no paths",
    )
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


def _check_command(document: Document[ServiceSettings]) -> None:
    settings = document.value
    document.require(
        ("command",), bool(settings.command), "has to name a program, as a list with its arguments"
    )
    document.require(("command", 0), bool(settings.command[0].strip()), "the program's name is empty")
    for number, argument in enumerate(settings.command):
        document.require(("command", number), "\0" not in argument, "an argument cannot have a NUL in it")
    for name, value in settings.env.items():
        document.require(
            ("env", name), bool(_VARIABLE.fullmatch(name)), "is not the name of an environment variable"
        )
        document.require(("env", name), "\0" not in value, "a value cannot have a NUL in it")


def _check_seconds(document: Document[ServiceSettings], path: tuple[str, str], seconds: float) -> None:
    document.require(
        path,
        0 < seconds <= SECONDS_AT_MOST,
        f"has to be more than 0 seconds and at most {SECONDS_AT_MOST:.0f}, not {seconds:g}",
    )
