"""Files that are whole or as they were, also after a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """The file holds `data` with this mode, less the umask; who reads it meanwhile sees the old content or the new.

    Raises OSError, and then it holds what it held.
    """
    draft = _draft(path, data, mode)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def create(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """The file holds `data`. Raises FileExistsError when there is one already, which stays, and OSError."""
    draft = _draft(path, data, mode)
    try:
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Which files are in the folder is on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _draft(path: Path, data: bytes, mode: int) -> Path:
    """A synced file beside `path`, under a name that nobody else has."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    opened = os.open(draft, _CREATE, mode)
    try:
        with os.fdopen(opened, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(opened)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft
