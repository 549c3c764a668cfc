"""Files that are whole or not there: what HAProxy and the router start from after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from milkrun.errors import DataPlaneError
from milkrun.host import files

_T = TypeVar("_T")


def write(path: Path, data: bytes) -> None:
    """The file holds `data`, also after a power cut; a reader sees the old content or the new, never a mix.

    Raises DataPlaneError when the disk refuses: what is not on disk is not served either.
    """
    try:
        if not _same(path, data):
            files.replace(path, data)
    except OSError as error:
        raise DataPlaneError(
            f"{path} cannot be written ({error.strerror}); what is served stays as it is",
            remedy="make room on the disk, or see who owns the folder",
        ) from error


def read(path: Path) -> bytes | None:
    """The file's content, None when there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def load(path: Path, shape: type[_T]) -> _T | None:
    """The value that was kept in the file; None when there is none, or nothing that can be understood."""
    data = read(path)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        structlog.get_logger("router").error(
            "a file is damaged; going on without it", file=str(path), why=str(error)
        )
        return None


def _same(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
