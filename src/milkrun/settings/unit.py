"""What an instance is made of, as `services/<name>.toml` says it: a program, or a Docker image. Pure.

Also what it finds before it starts: environment variables, secrets in files, and who has to be there already.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from milkrun.errors import InputRefused

if TYPE_CHECKING:
    from milkrun.settings.service import ServiceSettings
    from milkrun.settings.toml import Document

MEMORY_MB_AT_LEAST = 6
"""Docker's own limit."""
MEMORY_MB_AT_MOST = 1 << 22
SECRETS_FOLDER = "/run/secrets"
OWN_LABELS = "milkrun."

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[A-Za-z0-9{](?:[A-Za-z0-9._:/@{}-]{0,398}[A-Za-z0-9}])?")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_VOLUME = re.compile(
    r"(?P<host>/[^:\x00-\x1f\x7f]{0,500}):(?P<inside>/[^:\x00-\x1f\x7f]{1,500})(?P<write>:rw)?"
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
_PATH = re.compile(r"[^\x00-\x1f\x7f]{1,500}")


class DockerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The instance as a container of `image`, in which `{version}` is filled in; empty: no container.

    `command` stands for the image's own. With the network `bridge` the container's `port` is published on the
    instance's address and port (0: the number is the same inside); with `host` it listens there itself. `volumes`
    are `HOST-FOLDER:FOLDER`, which cannot be written to unless `:rw` follows. `memory_mb` is all that it gets (0: no
    limit). `init` starts it below a small init process, for programs that as the first one would not hear SIGTERM.
    """

    image: str = ""
    command: list[str] = []
    network: Literal["bridge", "host"] = "bridge"
    port: int = 0
    labels: dict[str, str] = {}
    volumes: list[str] = []
    memory_mb: int = 0
    init: bool = False


class Volume(msgspec.Struct, frozen=True):
    """A folder or file of the host as the container sees it."""

    source: str
    target: str
    read_only: bool


def volume(text: str) -> Volume:
    """The volume that `HOST-FOLDER:FOLDER[:rw]` means; InputRefused for anything else."""
    found = _VOLUME.fullmatch(text)
    if not found or any(part in (".", "..") for part in re.split("[/:]", text)):
        raise InputRefused(
            f"{text[:80]!r} is not a volume",
            remedy="write /folder/of/the/host:/folder/inside, and :rw to write to it",
        )
    return Volume(found["host"], found["inside"], not found["write"])


def waited_for(text: str) -> tuple[str, int]:
    """The host and port that `tcp://HOST:PORT` means; InputRefused for anything else."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        host, port = "", 0
    plain = (f"tcp://{host}:{port}", f"tcp://[{host}]:{port}")
    if not _HOST.fullmatch(host) or not port or text.lower() not in plain:
        raise InputRefused(f"{text[:80]!r} cannot be waited for", remedy="for example tcp://127.0.0.1:5432")
    return host, port


def check(document: Document[ServiceSettings]) -> None:
    """Refuses what cannot be started, with its line."""
    settings = document.value
    container = bool(settings.docker.image)
    document.require(
        ("docker", "image"),
        container or settings.docker == DockerSettings(),
        "is missing: it names the image",
    )
    document.require(
        ("command",),
        bool(settings.command) != container,
        "stands beside [docker]: an instance is a process or a container; the container's is docker.command"
        if container
        else "has to name a program, as a list with its arguments; or [docker] an image",
    )
    _check_command(document, ("command",), settings.command)
    for name, value in settings.env.items():
        document.require(
            ("env", name), bool(_VARIABLE.fullmatch(name)), "is not the name of an environment variable"
        )
        document.require(("env", name), "\0" not in value, "a value cannot have a NUL in it")
    for name, path in settings.secrets.items():
        here = ("secrets", name)
        document.require(here, bool(_VARIABLE.fullmatch(name)), "is not the name of an environment variable")
        document.require(here, bool(_PATH.fullmatch(path)), "is not the path of a file")
        document.require(here, f"{name}_FILE" not in settings.env, f"env has a {name}_FILE already")
    for number, text in enumerate(settings.wait_for):
        document.check(("wait_for", number), waited_for, text)
    if container:
        _check_container(document)


def _check_command(document: Document[ServiceSettings], path: tuple[str, ...], command: list[str]) -> None:
    if command:
        document.require((*path, 0), bool(command[0].strip()), "the program's name is empty")
    for number, argument in enumerate(command):
        document.require((*path, number), "\0" not in argument, "an argument cannot have a NUL in it")


def _check_container(document: Document[ServiceSettings]) -> None:
    docker = document.value.docker
    image = docker.image.replace("{version}", "0")
    document.require(
        ("docker", "image"),
        bool(_IMAGE.fullmatch(docker.image)) and "{" not in image and "}" not in image,
        "is not the name of an image, such as `goat:{version}`",
    )
    _check_command(document, ("docker", "command"), docker.command)
    document.require(("docker", "port"), 0 <= docker.port <= 65535, "has to be a port, or 0")
    document.require(
        ("docker", "port"),
        not (docker.port and docker.network == "host"),
        "is for the network `bridge`: with `host` the container listens on the instance's port",
    )
    for name, value in docker.labels.items():
        here = ("docker", "labels", name)
        document.require(here, bool(_LABEL.fullmatch(name)), "is not the name of a label")
        document.require(
            here, not name.startswith(OWN_LABELS), f"labels below `{OWN_LABELS}` are the agent's own"
        )
        document.require(here, "\0" not in value, "a value cannot have a NUL in it")
    for number, text in enumerate(docker.volumes):
        document.check(("docker", "volumes", number), volume, text)
    memory = docker.memory_mb
    document.require(
        ("docker", "memory_mb"),
        memory == 0 or MEMORY_MB_AT_LEAST <= memory <= MEMORY_MB_AT_MOST,
        f"has to be 0 (no limit) or {MEMORY_MB_AT_LEAST} to {MEMORY_MB_AT_MOST}, not {memory}",
    )
