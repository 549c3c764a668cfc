"""A proxy's program on this machine: where it is, and which version it says that it has."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from typing import TypeVar

import msgspec

from milkrun.errors import PartMissing

ANSWER_WAIT_S = 10.0


class Program(msgspec.Struct, frozen=True):
    """A program and its version, as (2, 8, 25)."""

    path: str
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """The version as the program writes it."""
        return ".".join(map(str, self.version))


_P = TypeVar("_P", bound=Program)


def named(variable: str, what: str, asked: Callable[[str], _P | None], *, remedy: str) -> _P | None:
    """The program that the environment variable names; None when it names none.

    Raises PartMissing, which calls it `what` and gives the remedy, when that one does not run.
    """
    path = os.environ.get(variable, "")
    if not path:
        return None
    program = asked(path)
    if program is None:
        raise PartMissing(f"{variable} names {path}, which is no {what} that runs here", remedy=remedy)
    return program


def version(path: str, option: str, said: str) -> tuple[int, ...] | None:
    """The version that the program says it has, by the groups of the pattern; None when it does not run or say so."""
    try:
        answer = subprocess.run(
            [path, option], capture_output=True, text=True, timeout=ANSWER_WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(said, answer.stdout)
    if answer.returncode or not match:
        return None
    return tuple(int(part) for part in match.groups() if part)
