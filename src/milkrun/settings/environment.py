"""What `milkrun.toml` says: the environment's registry, agents and routers."""

from __future__ import annotations

import msgspec

from milkrun.model import CommitMark


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the registry listens. `HOST:PORT`."""

    http: str = "127.0.0.1:8500"


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
