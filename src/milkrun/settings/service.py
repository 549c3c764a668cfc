"""What `services/<name>.toml` says: how to run, check and stop a service's instances."""

from __future__ import annotations

import msgspec

from milkrun.model import CommitMark


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The probe: GET `path` each `interval_s`; `rise` good answers in a row make it healthy, `fall` bad ones not."""

    path: str = "/health"
    interval_s: float = 1.0
    timeout_s: float = 2.0
    rise: int = 2
    fall: int = 3


class StopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a stop may take: to see no more traffic, and then to end after SIGTERM before SIGKILL."""

    drain_limit_s: float = 60.0
    stop_limit_s: float = 10.0


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `services/<name>.toml`.

    `command` is a program with its arguments, started without a shell in the environment's folder; in each
    argument `{python}`, `{service}`, `{version}`, `{instance}`, `{address}` and `{port}` are filled in.
    `needs` names the services it calls: they are started before it and stopped after it. `hosts` limits where
    it runs (empty: anywhere).
    """

    command: list[str]
    env: dict[str, str] = {}
    needs: list[str] = []
    hosts: list[str] = []
    health: HealthSettings = HealthSettings()
    stop: StopSettings = StopSettings()


class PublishedService(msgspec.Struct, frozen=True, kw_only=True):
    """A service's settings in the KV store, with the commit they came from."""

    mark: CommitMark
    settings: ServiceSettings
