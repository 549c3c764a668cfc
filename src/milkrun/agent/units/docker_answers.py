"""What the Docker engine answers: as much of it as the agent reads. Pure.

Source: Docker Engine API v1.41 (docs.docker.com/engine/api); fields that later versions kept.
"""

from __future__ import annotations

import msgspec


class _Shape(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What the engine answers: fields by their Go names; what else is there is passed over."""


class State(_Shape, frozen=True):
    """How a container is. `pid` is that of its first process, on this host; 0 when it does not run."""

    running: bool = False
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    error: str = ""
    started_at: str = ""


class Config(_Shape, frozen=True):
    """What a container was made from."""

    image: str = ""
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    exposed_ports: dict[str, object] | None = None


class HostConfig(_Shape, frozen=True):
    """How it stands on the host."""

    network_mode: str = ""


class Published(_Shape, frozen=True):
    """Where on the host a container's port is."""

    host_ip: str = ""
    host_port: str = ""


class NetworkSettings(_Shape, frozen=True):
    """Each port of the container (`8080/tcp`), and where it is published."""

    ports: dict[str, list[Published] | None] | None = None


class Container(_Shape, frozen=True):
    """One container as it is now."""

    id: str
    name: str = ""
    state: State = State()
    config: Config = Config()
    host_config: HostConfig = HostConfig()
    network_settings: NetworkSettings = NetworkSettings()

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; none when it has none."""
        return self.config.labels or {}


class Actor(_Shape, frozen=True):
    """Whom an event is about."""

    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] = {}


class Happened(_Shape, frozen=True):
    """One of the engine's events. `time_ns` is when, in nanoseconds since 1970."""

    action: str = ""
    actor: Actor = Actor()
    time_ns: int = msgspec.field(name="timeNano", default=0)


class Named(_Shape, frozen=True):
    """A container's id."""

    id: str


class Top(_Shape, frozen=True):
    """Its processes as a table of texts."""

    titles: list[str] = []
    processes: list[list[str]] | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why not."""

    message: str = ""
