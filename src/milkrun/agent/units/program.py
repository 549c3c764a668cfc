"""What is started: the arguments with their placeholders filled in, and an environment without secrets."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import InstanceId, ServiceName, VersionName, application_name
from milkrun.settings.placeholders import filled
from milkrun.settings.service import ServiceSettings

_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR|VIRTUAL_ENV|SSL_CERT_\w+"
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which instance it is and where it listens."""

    service: ServiceName
    version: VersionName
    instance: InstanceId
    address: str
    port: int


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program ready to start: no shell looks at it."""

    arguments: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path


def session_name(place: Place) -> dict[str, str]:
    """By this variable PostgreSQL's own library tells the database who the instance is: the contract of a migration
    waits until no session of an old version is left.
    """
    return {"PGAPPNAME": application_name(place.service, place.version, place.instance)}


def arguments(command: list[str], place: Place) -> list[str]:
    """The command with each placeholder replaced once; other braces stay as they are."""
    if not command:
        raise InputRefused("the command is empty", remedy="name a program in services/<name>.toml")
    values = {**msgspec.structs.asdict(place), "python": sys.executable}
    return filled(command, values)


def environment(
    inherited: Mapping[str, str],
    settings: ServiceSettings,
    place: Place,
    secrets: Mapping[str, str],
    *,
    registry: str,
    state: Path,
) -> dict[str, str]:
    """What the program sees: a few harmless variables of the agent's, the service's own, and who it is.

    `secrets` are files by name: it sees where they are.

    The agent's token is not among them: who holds it may run commands on every host.
    """
    return {
        **{name: value for name, value in inherited.items() if _PASSED_ON.fullmatch(name)},
        **session_name(place),
        **settings.env,
        **{f"{name}_FILE": path for name, path in secrets.items()},
        "MILKRUN_SERVICE": place.service,
        "MILKRUN_VERSION": place.version,
        "MILKRUN_INSTANCE": place.instance,
        "MILKRUN_ADDRESS": place.address,
        "MILKRUN_PORT": str(place.port),
        "MILKRUN_STATE": str(state),
        "CONSUL_HTTP_ADDR": registry,
    }
