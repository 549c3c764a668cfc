"""Where a command works: in which environment, and with which registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from milkrun.cli import terminal
from milkrun.errors import NotFound, UsageError
from milkrun.settings.text import typed

if TYPE_CHECKING:
    from milkrun.consul import Address
    from milkrun.settings.environment import Environment
    from milkrun.settings.folder import Folder


class Place:
    """The environment that a command was called in or for. Nothing is read before it is asked for."""

    def __init__(self, env: Path | None) -> None:
        self._env = env
        self._environment: Environment | None = None

    def folder(self) -> Folder:
        """The environment's folder. Raises NotFound when there is none here or above."""
        from milkrun.settings.folder import Folder

        if self._env is None:
            return Folder.find(Path.cwd())
        if not (self._env / "milkrun.toml").is_file():
            raise NotFound(
                f"{self._env} is no environment: it has no milkrun.toml",
                remedy=f"milkrun init {typed(self._env)} --template dairy",
            )
        return Folder(self._env.absolute())

    def folder_if_any(self) -> Folder | None:
        """The environment's folder; None when this is no environment and none was named."""
        try:
            return self.folder()
        except NotFound:
            if self._env:
                raise
            return None

    def state_dir(self, given: Path | None, name: str) -> Path:
        """Where a part keeps its state: `given`, or its place in the environment."""
        if given:
            return given.absolute()
        if folder := self.folder_if_any():
            return folder.state / name
        raise UsageError(
            "this is no environment, so there is no place to keep state in",
            remedy="name one with --state DIR (registry: --data DIR), or run it in the environment's folder",
        )

    def environment(self) -> Environment | None:
        """What milkrun.toml says, or what runs was started with while it is wrong; None in no environment.

        Raises InputRefused for a wrong milkrun.toml when nothing runs here.
        """
        if self._environment is None and (folder := self.folder_if_any()):
            from milkrun.up.record import environment

            self._environment, why = environment(folder)
            if why:
                terminal.say(f"milkrun: {why}")
        return self._environment

    def address(self, url: str = "") -> Address:
        """Where the registry is: `url`, else CONSUL_HTTP_ADDR, else milkrun.toml's, else port 8500.

        The environment's own token goes to the environment's own registry only.
        """
        from milkrun.consul import Address

        given = url or os.environ.get("CONSUL_HTTP_ADDR", "")
        folder = self.folder_if_any()
        if folder is None or (environment := self.environment()) is None:
            return Address.from_environment(url)
        own = environment.registry.url
        if given and own not in (given.rstrip("/"), f"{own.partition('://')[0]}://{given}"):
            return Address.from_environment(url)
        return Address.from_environment(own, token_file=folder.token_file)
