"""Which guests the registry was told of, on disk: after its death an agent takes out those that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from milkrun.host import files
from milkrun.model import InstanceId


class Known:
    """Instances and the ids of their containers, in the file `guests.json` of the agent's state."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "guests.json"
        self._guests = self._load()
        self._log = structlog.get_logger("guests")

    def __iter__(self) -> Iterator[InstanceId]:
        return iter(list(self._guests))

    def get(self, instance: InstanceId) -> str:
        """The container that was registered as this instance; empty when none was."""
        return self._guests.get(instance, "")

    def add(self, instance: InstanceId, container: str) -> None:
        """It is known; written before the registry hears of it."""
        self._save({**self._guests, instance: container})

    def remove(self, instance: InstanceId) -> None:
        """It is known no more; written after the registry was told."""
        self._save({one: container for one, container in self._guests.items() if one != instance})

    def _save(self, guests: dict[InstanceId, str]) -> None:
        self._guests = guests
        try:
            files.replace(self._path, msgspec.json.encode(guests))
        except OSError as error:
            self._log.error("cannot be written; goes on without", file=str(self._path), why=error.strerror)

    def _load(self) -> dict[InstanceId, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[InstanceId, str])
        except (OSError, msgspec.DecodeError):
            return {}
