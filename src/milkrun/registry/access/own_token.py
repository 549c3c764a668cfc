"""The registry's own token: a file that only its owner reads. Who holds it may do everything.

It is made at the first start, so that there is no moment in which anyone may write, and no step by hand. The
file is the truth: put another secret into it and restart, and the old one is worth nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from milkrun.errors import InputRefused
from milkrun.registry.access.tokens import digest_of

NAME = "token"
CHARACTERS_AT_LEAST = 32
_BYTES = 32
_AT_MOST = 4096


def digest_at(file: Path) -> str:
    """The digest of the file's token, which is made when there is none. Raises InputRefused for a bad file."""
    try:
        return digest_of(_read(file))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(file, f"it cannot be read: {error.strerror}") from error
    try:
        return digest_of(_make(file))
    except OSError as error:
        raise _refused(file, f"it cannot be written: {error.strerror}") from error


def _read(file: Path) -> bytes:
    opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(kind := os.fstat(opened).st_mode):
        os.close(opened)
        raise _refused(file, "it is no plain file")
    with os.fdopen(opened, "rb") as source:
        mode = stat.S_IMODE(kind)
        text = source.read(_AT_MOST + 1).strip()
    if mode & 0o077:
        raise _refused(file, f"others may read it (mode {mode:04o})", f"chmod 600 {file}")
    if not CHARACTERS_AT_LEAST <= len(text) <= _AT_MOST or not text.isascii() or b"\n" in text:
        raise _refused(file, f"it should hold one line of {CHARACTERS_AT_LEAST} characters or more")
    return text


def _make(file: Path) -> bytes:
    """The file is whole on the disk, or not there; of two who make it at once the first one's token counts."""
    secret = secrets.token_urlsafe(_BYTES).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "wb") as out:
            out.write(secret + b"\n")
            out.flush()
            os.fsync(opened)
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return _read(file)


def _refused(file: Path, why: str, remedy: str = "") -> InputRefused:
    return InputRefused(
        f"the registry's token file is refused: {why}",
        file=str(file),
        remedy=remedy or f"remove {file}: the registry makes a new one when it starts",
    )
