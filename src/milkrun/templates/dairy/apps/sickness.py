"""What is wrong with a goat of this version, as `[env]` of services/goat.toml says it in DAIRY_SICK:

0.0.4: errors 5%, 0.0.5: slow 20ms, 0.0.6: crash after 15s

errors 5%          so many of its answers are 500, by chance, but its first ones and its health are good
slow 20ms          each milking takes so much longer
crash after 15s    it ends all at once, so long after it started
never healthy      its health check fails from the start
hang on stop       SIGTERM does nothing
wrong answer       it answers 200, but gives water
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

UNITS = {"ms": 0.001, "s": 1.0}
WAYS = re.compile(
    r"errors (?P<errors>[0-9]{1,3}(?:\.[0-9]{1,2})?)%"
    r"|slow (?P<slow>[0-9]{1,5})(?P<slow_unit>ms|s)"
    r"|crash after (?P<crash>[0-9]{1,5})(?P<crash_unit>ms|s)"
    r"|(?P<unhealthy>never healthy)|(?P<hangs>hang on stop)|(?P<wrong>wrong answer)"
)
EXAMPLES = "`errors 5%`, `slow 20ms`, `crash after 15s`, `never healthy`, `hang on stop`, `wrong answer`"


@dataclass(frozen=True)
class Sickness:
    """What is wrong. As it is made: nothing."""

    errors: float = 0.0
    slow_s: float = 0.0
    crash_after_s: float | None = None
    unhealthy: bool = False
    hangs: bool = False
    wrong: bool = False


def of(version: str, text: str) -> Sickness:
    """What `text` says of this version. Raises ValueError for a text that is wrong anywhere, also about others."""
    found: dict[str, Sickness] = {}
    for part in text.split(",") if text.strip() else ():
        name, colon, what = (word.strip() for word in part.partition(":"))
        if not name or not colon:
            raise ValueError(f"{part.strip()!r} is not as `0.0.4: errors 5%`")
        if name in found:
            raise ValueError(f"{name} stands there twice")
        found[name] = one(" ".join(what.split()))
    return found.get(version, Sickness())


def one(what: str) -> Sickness:
    """The sickness that these words name."""
    match = WAYS.fullmatch(what)
    if not match:
        raise ValueError(f"{what!r} is no sickness; there are {EXAMPLES}")
    said = match.groupdict()
    found = Sickness(unhealthy=bool(said["unhealthy"]), hangs=bool(said["hangs"]), wrong=bool(said["wrong"]))
    if said["errors"]:
        share = float(said["errors"]) / 100
        if not 0 < share <= 1:
            raise ValueError(f"{what!r}: a share is over 0% and at most 100%")
        found = replace(found, errors=share)
    if said["slow"]:
        found = replace(found, slow_s=int(said["slow"]) * UNITS[said["slow_unit"]])
    if said["crash"]:
        found = replace(found, crash_after_s=int(said["crash"]) * UNITS[said["crash_unit"]])
    return found
