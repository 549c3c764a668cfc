"""The key that override cookies are signed with: a file that only its owner reads, on each router's host.

Another key in the file, and every cookie made before is worth nothing from the router's next start on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from milkrun.errors import InputRefused

NAME = "override.key"
_BYTES = 32
_CHARACTERS_AT_LEAST = 32
_CHARACTERS_AT_MOST = 1024


def key_at(file: Path) -> bytes:
    """The file's key, which is made when there is none. Raises InputRefused for a bad file."""
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(file)
        _make(file)
        return _read(file)
    except OSError as error:
        raise _refused(file, f"it cannot be read or made: {error.strerror}") from error


def _read(file: Path) -> bytes:
    opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb") as source:
        mode = os.fstat(opened).st_mode
        text = source.read(_CHARACTERS_AT_MOST + 1).strip() if stat.S_ISREG(mode) else b""
    if stat.S_IMODE(mode) & 0o077:
        raise _refused(file, f"others may read it (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {file}")
    if not _CHARACTERS_AT_LEAST <= len(text) <= _CHARACTERS_AT_MOST or len(text.splitlines()) != 1:
        raise _refused(file, f"it should hold one line of {_CHARACTERS_AT_LEAST} characters or more")
    return text


def _make(file: Path) -> None:
    """The file is there: whole, and ours or that of who was faster."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "wb") as out:
            out.write(secrets.token_hex(_BYTES).encode() + b"\n")
            out.flush()
            os.fsync(opened)
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _refused(file: Path, why: str, remedy: str = "") -> InputRefused:
    return InputRefused(
        f"the key of override cookies is refused: {why}",
        file=str(file),
        remedy=remedy or f"remove {file}: the next `milkrun override` or router makes a new one",
    )
