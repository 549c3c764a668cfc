"""Secrets reach an instance as files: their contents are never in git, an environment, a log or a report."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from milkrun.errors import InputRefused


def resolved(secrets: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The whole path of each file. InputRefused for one that is not there, no plain file, or open to others."""
    return {name: _judged(name, folder / path) for name, path in secrets.items()}


def _judged(name: str, path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _refused(
            name, path, (error.strerror or "it cannot be looked at").lower(), "put it there"
        ) from error
    if not stat.S_ISREG(mode):
        raise _refused(name, path, "it is no plain file", "name a file")
    if mode & 0o077:
        raise _refused(name, path, f"others may read it (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {path}")
    return str(path)


def _refused(name: str, path: Path, why: str, remedy: str) -> InputRefused:
    return InputRefused(f"the secret {name} is not given out: {why}", file=str(path), remedy=remedy)
