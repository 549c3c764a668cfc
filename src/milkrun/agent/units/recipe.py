"""What the Docker engine is told to make of a service's settings. Pure.

A container gets no privileges, and nothing of the host but what the settings name: volumes that it cannot write to
unless they say so, and its secrets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from milkrun.agent.units.program import Place, session_name
from milkrun.settings.placeholders import filled
from milkrun.settings.service import ServiceSettings
from milkrun.settings.unit import SECRETS_FOLDER, volume

INSTANCE = "milkrun.instance"
STATE = "milkrun.state"
"""The labels by which an agent knows its own: which instance it is, and the folder of the agent's state."""
LOG_BYTES_AT_MOST = "10m"


def image(settings: ServiceSettings, version: str) -> str:
    """The image's name; a tag cannot have a `+`."""
    return settings.docker.image.replace("{version}", version.replace("+", "_"))


def inside(settings: ServiceSettings, place: Place) -> Place:
    """Where the program listens, as it sees it itself."""
    if settings.docker.network == "host":
        return place
    address = "::" if ":" in place.address else "0.0.0.0"  # noqa: S104  (of the container's own network)
    return msgspec.structs.replace(place, address=address, port=settings.docker.port or place.port)


def body(
    settings: ServiceSettings, place: Place, secrets: Mapping[str, str], *, registry: str, state: str
) -> dict[str, Any]:
    """The container to create, as the engine's API wants it. `secrets` are files of the host by name."""
    docker, seen = settings.docker, inside(settings, place)
    host: dict[str, Any] = {
        "NetworkMode": docker.network,
        "Mounts": [*_volumes(docker.volumes), *_secrets(secrets)],
        "RestartPolicy": {"Name": "no"},  # the agent starts it again: it knows the slot and the backoff
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_BYTES_AT_MOST, "max-file": "2"}},
        "SecurityOpt": ["no-new-privileges"],
        "Init": docker.init,
    }
    if docker.memory_mb:
        host |= {"Memory": docker.memory_mb << 20, "MemorySwap": docker.memory_mb << 20}
    made: dict[str, Any] = {
        "Image": image(settings, place.version),
        "Env": [f"{name}={value}" for name, value in _environment(settings, seen, secrets, registry).items()],
        "Labels": {**docker.labels, INSTANCE: place.instance, STATE: state},
        "HostConfig": host,
    }
    if docker.command:
        made["Cmd"] = [_filled(part, seen) for part in docker.command]
    if docker.network == "bridge":
        port = f"{seen.port}/tcp"
        made["ExposedPorts"] = {port: {}}
        host["PortBindings"] = {port: [{"HostIp": place.address, "HostPort": str(place.port)}]}
    return made


def _environment(
    settings: ServiceSettings, seen: Place, secrets: Mapping[str, str], registry: str
) -> dict[str, str]:
    own = {
        "MILKRUN_SERVICE": seen.service,
        "MILKRUN_VERSION": seen.version,
        "MILKRUN_INSTANCE": seen.instance,
        "MILKRUN_ADDRESS": seen.address,
        "MILKRUN_PORT": str(seen.port),
    }
    # Behind a bridge, loopback is the container itself.
    if settings.docker.network == "host" or not _loopback(registry):
        own["CONSUL_HTTP_ADDR"] = registry
    paths = {f"{name}_FILE": f"{SECRETS_FOLDER}/{name}" for name in secrets}
    return {**session_name(seen), **settings.env, **paths, **own}


def _filled(part: str, place: Place) -> str:
    return filled([part], msgspec.structs.asdict(place))[0]


def _volumes(texts: list[str]) -> list[dict[str, Any]]:
    found = [volume(text) for text in texts]
    return [_mount(one.source, one.target, read_only=one.read_only) for one in found]


def _secrets(secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    return [_mount(path, f"{SECRETS_FOLDER}/{name}", read_only=True) for name, path in secrets.items()]


def _mount(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    # A mount, and not a bind: of a folder that is not there the engine would make one, owned by root.
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}


def _loopback(registry: str) -> bool:
    host = urlsplit(registry).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
