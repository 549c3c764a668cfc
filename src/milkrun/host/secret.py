"""A secret in a file that only its owner reads, made when there is none: nobody has to think of one."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from milkrun.errors import InputRefused
from milkrun.host import files

CHARACTERS_AT_LEAST = 32
CHARACTERS_AT_MOST = 4096
_BYTES = 32


def secret_at(file: Path, what: str, remedy: str) -> bytes:
    """The file's secret: one line. Of two who make it at once the first one's counts.

    Raises InputRefused, which calls it `what` and gives the remedy, for a file that others may read, that is no
    plain file, or that cannot be read or made.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(file, what, remedy)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            files.create(file, secrets.token_urlsafe(_BYTES).encode() + b"\n")
        return _read(file, what, remedy)
    except OSError as error:
        raise _refused(file, what, f"it cannot be read or made: {error.strerror}", remedy) from error


def _read(file: Path, what: str, remedy: str) -> bytes:
    opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(kind := os.fstat(opened).st_mode):
        os.close(opened)
        raise _refused(file, what, "it is no plain file", remedy)
    with os.fdopen(opened, "rb") as source:
        text = source.read(CHARACTERS_AT_MOST + 1).strip()
    if (mode := stat.S_IMODE(kind)) & 0o077:
        raise _refused(file, what, f"others may read it (mode {mode:04o})", f"chmod 600 {file}")
    fits = CHARACTERS_AT_LEAST <= len(text) <= CHARACTERS_AT_MOST
    if not fits or not text.isascii() or len(text.splitlines()) != 1:
        raise _refused(
            file, what, f"it should hold one line of {CHARACTERS_AT_LEAST} characters or more", remedy
        )
    return text


def _refused(file: Path, what: str, why: str, remedy: str) -> InputRefused:
    return InputRefused(f"{what} is refused: {why}", file=str(file), remedy=remedy)
