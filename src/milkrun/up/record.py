"""What a running `up` writes of itself, so that `down` and the next `up` find it and its parts."""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgspec

from milkrun.errors import Conflict, InputRefused, MilkrunError
from milkrun.host.process import Identity, runs
from milkrun.settings.environment import Environment
from milkrun.settings.folder import Folder
from milkrun.settings.text import typed
from milkrun.up.lock import only_one


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One process that was running when this was written."""

    identity: Identity

    @property
    def pid(self) -> int:
        """Its pid, which is its own only while it is alive."""
        return self.identity.pid

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return runs(self.identity)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All of up.json. `ready` once every service was up; `environment` is what it was started with."""

    up: Known
    environment: Environment | None = None
    ready: bool = False
    parts: dict[str, Known] = {}


def load(folder: Folder) -> Record | None:
    """What the last `up` wrote; None when there is nothing that can be read."""
    try:
        return msgspec.json.decode(folder.up_file.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def environment(folder: Folder) -> tuple[Environment, str]:
    """What milkrun.toml says; while that is refused, what runs here was started with, and why that is taken.

    Raises InputRefused when it is refused and nothing runs here.
    """
    try:
        return folder.load_environment(), ""
    except InputRefused as error:
        record = load(folder)
        if record is None or record.environment is None:
            raise
        return record.environment, f"{error.message}; goes on with what `milkrun up` was started with"


def save(folder: Folder, record: Record) -> None:
    """up.json holds the record as a whole."""
    temporary = folder.up_file.with_suffix(".tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(folder.up_file)
    except OSError as error:
        raise MilkrunError(
            f"{folder.up_file} cannot be written: {error.strerror}",
            remedy="free some space there, or own the folder",
        ) from error


def the_only_up(folder: Folder) -> AbstractContextManager[None]:
    """While inside, no other process is the `up` of this environment; else Conflict is raised."""
    path = typed(folder.path)
    return only_one(
        folder.lock_file,
        lambda pid: Conflict(
            f"`milkrun up` runs in {folder.path} already (pid {pid})",
            remedy=f"`milkrun --env {path} status` shows it, `milkrun down {path}` stops it",
        ),
    )
