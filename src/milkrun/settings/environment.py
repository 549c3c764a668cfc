"""What `milkrun.toml` says: the environment's registry, agents and routers."""

from __future__ import annotations

from typing import Literal

import msgspec

from milkrun.model import CommitMark, branch_name, endpoint, host_port, service_name
from milkrun.settings.check_allow import network
from milkrun.settings.toml import Document
from milkrun.settings.toml_lines import Path


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the registry listens. `HOST:PORT`; DNS is off where `dns` is empty.

    `srv_weight_scale` is what the weights in SRV records are multiplied by: 256 where HAProxy reads them. `acl`
    says who may do what without a token: everyone everything (open), this machine read (default), nobody
    anything (closed). `check_allow` are the networks that its health checks may reach, besides a service's own
    address and loopback.
    """

    http: str = "127.0.0.1:8500"
    dns: str = ""
    srv_weight_scale: int = 1
    acl: Literal["open", "default", "closed"] = "default"
    check_allow: list[str] = []


class GitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which branch of the environment's repository is the wish."""

    branch: str = "main"


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where instances listen: the host's IP address and the first and last port they may take."""

    address: str = "127.0.0.1"
    ports: tuple[int, int] = (8101, 8199)


class RouterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One load balancer: the service it stands for, where it listens and where its stats page is."""

    service: str
    listen: str
    stats: str


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `milkrun.toml`. `routers` is by name, which is also their name in the catalog (`lb-goat`)."""

    name: str
    registry: RegistrySettings = RegistrySettings()
    git: GitSettings = GitSettings()
    agent: AgentSettings = AgentSettings()
    routers: dict[str, RouterSettings] = {}


class PublishedEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """`milkrun.toml` in the KV store, with the commit it came from."""

    mark: CommitMark
    settings: Environment


def load(data: bytes, file: str) -> Environment:
    """The settings that a `milkrun.toml` states; raises InputRefused with the file and the line."""
    document = Document(data, Environment, file)
    settings = document.value
    document.check(("name",), service_name, settings.name)
    document.check(("git", "branch"), branch_name, settings.git.branch)
    document.check(("agent", "address"), lambda text: endpoint(text, 1), settings.agent.address)
    first, last = settings.agent.ports
    document.require(
        ("agent", "ports"),
        1 <= first <= last <= 65535,
        f"{first} to {last} is not a range of ports: the first and the last one, from 1 to 65535",
    )
    taken: dict[tuple[str, int], str] = {}
    _listens(document, taken, ("registry", "http"), settings.registry.http)
    if settings.registry.dns:
        _listens(document, taken, ("registry", "dns"), settings.registry.dns)
    document.require(
        ("registry", "srv_weight_scale"),
        1 <= settings.registry.srv_weight_scale <= 65535,
        "what SRV weights are multiplied by is a number from 1 to 65535; 256 is right for HAProxy",
    )
    for place, text in enumerate(settings.registry.check_allow):
        document.check(("registry", "check_allow", place), network, text)
    for name, router in settings.routers.items():
        document.check(("routers", name), service_name, name)
        document.check(("routers", name, "service"), service_name, router.service)
        _listens(document, taken, ("routers", name, "listen"), router.listen)
        _listens(document, taken, ("routers", name, "stats"), router.stats)
    return settings


def _listens(
    document: Document[Environment], taken: dict[tuple[str, int], str], path: Path, text: str
) -> None:
    """Refuses what is not HOST:PORT, and an address that another part of the environment listens on."""
    document.check(path, host_port, text)
    where = ".".join(str(part) for part in path)
    other = taken.setdefault(host_port(text), where)
    document.require(path, other == where, f"{text} is the address of {other} already")
