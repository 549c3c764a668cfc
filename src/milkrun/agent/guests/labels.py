"""Which service a container says that it is: by Milkrun's labels, or by those that registrator knew. Pure.

Source for the latter: registrator's documentation, "Service Object". Each is a label or an environment variable;
`SERVICE_8080_NAME` speaks of the port 8080 only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from milkrun.agent.units.docker_answers import Container
from milkrun.agent.units.recipe import INSTANCE
from milkrun.errors import InputRefused
from milkrun.model import ServiceName, VersionName, service_name, version_name

SERVICE = "milkrun.service"
VERSION = "milkrun.version"
PORT = "milkrun.port"
HEALTH = "milkrun.health"
UNVERSIONED = "unversioned"

_NAME_OF_PORT = re.compile(r"SERVICE_(\d{1,5})_NAME")
_PATH = re.compile(r"/[!-~]{0,1000}")
_TAG = re.compile(r"[!-~]{1,200}")
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  (what a published port says of itself)
_ENDS = {"1": "HUP", "2": "INT", "3": "QUIT", "9": "KILL", "10": "USR1", "12": "USR2", "15": "TERM"}


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A service's instance as a container offers it. `health` is a path to probe; empty: it is well while it runs."""

    service: ServiceName
    version: VersionName
    address: str
    port: int
    health: str = ""
    tags: tuple[str, ...] = ()


def offer(container: Container, address: str) -> Offer | None:
    """What the container offers; None when it is nobody's service, or an agent's own unit.

    `address` is this host's: ports that are published everywhere are reached there. InputRefused says which label
    cannot be used.
    """
    said = {**_environment(container), **container.labels}
    if INSTANCE in said or said.get("SERVICE_IGNORE"):
        return None
    ports = sorted(int(found[1]) for name in said if (found := _NAME_OF_PORT.fullmatch(name)))
    chosen = _number(said[PORT]) if PORT in said else ports[0] if ports else 0
    name = said.get(SERVICE) or _registrators(said, chosen, "NAME")
    if not name:
        return None
    inside, where = _place(container, address, chosen)
    tags = [tag for tag in _registrators(said, inside, "TAGS").split(",") if tag]
    versions = [tag.removeprefix("version=") for tag in tags if tag.startswith("version=")]
    health = said.get(HEALTH) or _registrators(said, inside, "CHECK_HTTP")
    if health and not _PATH.fullmatch(health):
        raise InputRefused(f"its health {health[:80]!r} is not a path such as /health")
    if name == "milkrun" or name.startswith("milkrun-"):
        raise InputRefused(f"{name!r} is a name of milkrun's own parts")
    if bad := next((tag for tag in tags if not _TAG.fullmatch(tag)), None):
        raise InputRefused(f"its tag {bad[:80]!r} is no plain text")
    return Offer(
        service=service_name(name),
        version=version_name(said.get(VERSION) or (versions[0] if versions else UNVERSIONED)),
        address=where[0],
        port=where[1],
        health=health,
        tags=tuple(tag for tag in tags if not tag.startswith("version=")),
    )


def asks_to_end(signal: str, stop_signal: str) -> bool:
    """Whether a signal that a container was sent (a number or a name) is one to end by; others mean other things."""
    plain, own = (_ENDS.get(text, text).upper().removeprefix("SIG") for text in (signal, stop_signal))
    return plain in ("TERM", "INT", "QUIT", "KILL") or (bool(own) and plain == own)


def _registrators(said: Mapping[str, str], port: int, what: str) -> str:
    return said.get(f"SERVICE_{port}_{what}") or said.get(f"SERVICE_{what}", "")


def _environment(container: Container) -> dict[str, str]:
    """The variables that registrator reads; a program's others are not labels."""
    pairs = [entry.partition("=")[::2] for entry in container.config.env or []]
    return {name: value for name, value in pairs if name.startswith("SERVICE_")}


def _place(container: Container, address: str, port: int) -> tuple[int, tuple[str, int]]:
    """The container's port, and where on this host that is."""
    if container.host_config.network_mode == "host":
        known = {number: (address, number) for number in _tcp(container.config.exposed_ports or {})}
        if port:
            known[port] = (address, port)
    else:
        known = {}
        ports = container.network_settings.ports or {}
        for number, text in _tcp(ports).items():
            for one in ports[text] or []:
                host = address if one.host_ip in _EVERYWHERE else one.host_ip
                known.setdefault(number, (host, _number(one.host_port)))
    if port:
        if port not in known:
            raise InputRefused(
                f"its port {port} is not published", remedy=f"docker run --publish {port}, or --network host"
            )
        return port, known[port]
    if len(known) != 1:
        which = "several ports" if known else "no port that is published"
        raise InputRefused(f"it has {which}", remedy=f"say which one by the label {PORT}")
    return next(iter(known.items()))


def _tcp(ports: Mapping[str, object]) -> dict[int, str]:
    return {int(text.removesuffix("/tcp")): text for text in ports if re.fullmatch(r"\d{1,5}/tcp", text)}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise InputRefused(f"{text[:80]!r} is not a port")
    return int(text)
