"""What the agent must know after its own death: one file a unit, written before what it speaks of is done."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from milkrun.agent.plan import Slot
from milkrun.errors import MilkrunError
from milkrun.host import files
from milkrun.host.process import Identity
from milkrun.model import InstanceId
from milkrun.settings.service import ServiceSettings


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One unit. `identity` is None between the wish to start a process and the knowledge of its pid.

    `settings` are those that the running process was started with. `registered` and `stopping` (the reason)
    are written before the registry hears of it.
    """

    instance: InstanceId
    slot: Slot
    address: str
    port: int
    log: str
    settings: ServiceSettings
    identity: Identity | None = None
    registered: bool = False
    stopping: str = ""
    starts: int = 0


class Records:
    """The folder `units` in the agent's state."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "units"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def save(self, record: Record) -> None:
        """The record is on disk as a whole, or MilkrunError is raised and the old one still is."""
        path = self._path(record.instance)
        try:
            files.replace(path, msgspec.json.encode(record))
        except OSError as error:
            raise MilkrunError(
                f"the agent cannot write its record {path}: {error.strerror}",
                remedy="free some space there, or let the agent's user write",
            ) from error

    def remove(self, instance: InstanceId) -> None:
        """There is no record of the instance."""
        try:
            self._path(instance).unlink(missing_ok=True)
            files.sync(self._folder)
        except OSError as error:
            raise MilkrunError(
                f"the agent cannot remove its record of {instance}: {error.strerror}"
            ) from error

    def load(self) -> list[Record]:
        """All records, by instance. One that cannot be read is put aside and told of."""
        records = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                records.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (msgspec.DecodeError, OSError) as error:
                structlog.get_logger("records").error(
                    "a unit's record cannot be read; it is put aside", file=str(path), why=str(error)
                )
                path.replace(path.with_suffix(".broken"))
        return records

    def _path(self, instance: InstanceId) -> Path:
        return self._folder / f"{instance}.json"
