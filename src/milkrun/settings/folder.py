"""The environment's folder: where each thing in it is, and what only this machine needs."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import msgspec

from milkrun.errors import InputRefused, NotFound
from milkrun.settings import environment
from milkrun.settings.environment import Environment

SETTINGS_FILE = "milkrun.toml"
_REMEDY = "make one with `milkrun init DIR --template dairy`, or name yours with --env DIR"


class Folder(msgspec.Struct, frozen=True):
    """An environment's folder, a git repository with `milkrun.toml`, `services/` and `deploy/`.

    `.milkrun` in it is this machine's own and never committed.
    """

    path: Path

    @classmethod
    def find(cls, start: Path) -> Self:
        """The environment that `start` is in: the nearest folder, from `start` up, with a `milkrun.toml`."""
        start = start.absolute()
        for path in (start, *start.parents):
            if (path / SETTINGS_FILE).is_file():
                return cls(path)
        raise NotFound(f"there is no {SETTINGS_FILE} in {start} or above it", remedy=_REMEDY)

    @property
    def settings_file(self) -> Path:
        """`milkrun.toml`."""
        return self.path / SETTINGS_FILE

    @property
    def state(self) -> Path:
        """What this machine keeps of the environment while it runs and between runs."""
        return self.path / ".milkrun"

    @property
    def registry(self) -> Path:
        """The embedded registry's data."""
        return self.state / "registry"

    @property
    def token_file(self) -> Path:
        """The embedded registry's own token: who reads it may do everything."""
        return self.state / "token"

    @property
    def agent(self) -> Path:
        """The agent's session and the records of the units it runs."""
        return self.state / "agent"

    @property
    def gitsync(self) -> Path:
        """The session of gitsync, and the mirror of a remote repository."""
        return self.state / "gitsync"

    @property
    def logs(self) -> Path:
        """One log file an instance and a part."""
        return self.state / "logs"

    @property
    def up_file(self) -> Path:
        """What a running `milkrun up` wrote of itself."""
        return self.state / "up.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the one `milkrun up` that runs this environment here."""
        return self.state / "lock"

    def router(self, name: str) -> Path:
        """A router's state: its HAProxy's configuration, socket and last good wish."""
        return self.state / "routers" / name

    def deploy_file(self, service: str) -> str:
        """The path in the repository of a service's weights and replicas."""
        return f"deploy/{service}.json"

    def service_file(self, service: str) -> str:
        """The path in the repository of a service's settings."""
        return f"services/{service}.toml"

    def load_environment(self) -> Environment:
        """What `milkrun.toml` says now. Raises NotFound without one, InputRefused for a wrong one."""
        try:
            data = self.settings_file.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"there is no {SETTINGS_FILE} in {self.path}", remedy=_REMEDY) from error
        except OSError as error:
            raise InputRefused(f"cannot be read: {error.strerror}", file=str(self.settings_file)) from error
        return environment.load(data, SETTINGS_FILE)
