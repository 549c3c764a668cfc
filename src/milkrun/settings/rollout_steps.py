"""The steps of a canary as people write them in `services/<name>.toml`. Pure.

smoke                             test the new instances directly
weight 5%                         the new version's share
analyse 60s                       compare it with the old version over at least so long
ramp 100% by 10% every 30s        raise the share in steps, each watched for so long
pause 30s | pause                 wait so long, or until somebody says `resume`
approve | approve 24h             wait until somebody approves; after so long it is taken back
"""

from __future__ import annotations

import re
from typing import TypeAlias

import msgspec

from milkrun.errors import InputRefused
from milkrun.settings.text import did_you_mean, shown

STEPS_AT_MOST = 100
RAMP_STEPS_AT_MOST = 100
WAIT_S_AT_MOST = 30 * 86_400.0

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%")


class Smoke(msgspec.Struct, frozen=True, tag="smoke"):
    """The new instances are tested directly, before any user sees them."""


class Weight(msgspec.Struct, frozen=True, tag="weight"):
    """The new version's share is `percent`."""

    percent: float


class Analyse(msgspec.Struct, frozen=True, tag="analyse"):
    """The versions are compared over at least `seconds`, until there is a verdict."""

    seconds: float


class Ramp(msgspec.Struct, frozen=True, tag="ramp"):
    """The share rises to `percent` in steps of `by`, each of which is watched for `every_s`."""

    percent: float
    by: float
    every_s: float


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """`seconds` pass; without end (0) until somebody resumes."""

    seconds: float = 0.0


class Approve(msgspec.Struct, frozen=True, tag="approve"):
    """Somebody approves or rejects; after `limit_s` (0: never) it counts as rejected."""

    limit_s: float = 0.0


Step: TypeAlias = Smoke | Weight | Analyse | Ramp | Pause | Approve

_SHAPES = {
    "smoke": "smoke",
    "weight": "weight 5%",
    "analyse": "analyse 60s",
    "ramp": "ramp 100% by 10% every 30s",
    "pause": "pause 30s",
    "approve": "approve 24h",
}


def parse(text: str) -> Step:
    """The step that a line states. Raises InputRefused for anything else."""
    word, *rest = text.split()[:10] or [""]
    match word, rest:
        case "smoke", []:
            return Smoke()
        case "weight", [share]:
            return Weight(percent(share))
        case "analyse", [time]:
            return Analyse(seconds(time))
        case "ramp", [share, "by", by, "every", time]:
            return _ramp(share, by, time)
        case "pause", []:
            return Pause()
        case "pause", [time]:
            return Pause(seconds(time))
        case "approve", []:
            return Approve()
        case "approve", [time]:
            return Approve(seconds(time))
    known = did_you_mean(word, _SHAPES) if word not in _SHAPES else f"; it is written as `{_SHAPES[word]}`"
    raise InputRefused(
        f"{shown(text)} is no step of a rollout{known}",
        remedy="the steps are: " + ", ".join(f"`{shape}`" for shape in _SHAPES.values()),
    )


def _ramp(share: str, by: str, time: str) -> Ramp:
    ramp = Ramp(percent(share), percent(by), seconds(time))
    if ramp.percent / ramp.by > RAMP_STEPS_AT_MOST:
        raise InputRefused(f"a ramp by {by} has more than {RAMP_STEPS_AT_MOST} steps")
    return ramp


def percent(text: str) -> float:
    """`5%` or `0.5%` as a number over 0 up to 100."""
    match = _SHARE.fullmatch(text)
    if not match or not 0 < float(match[1]) <= 100:
        raise InputRefused(f"{shown(text)} is no share", remedy="write 0.01% to 100%")
    return float(match[1])


def seconds(text: str) -> float:
    """`30s`, `5m`, `24h` or `2d` as seconds over 0."""
    match = _TIME.fullmatch(text)
    found = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < found <= WAIT_S_AT_MOST:
        raise InputRefused(f"{shown(text)} is no time", remedy="write 30s, 5m, 24h or 2d (30d at most)")
    return found


def said(step: Step) -> str:
    """The step in the words that `parse` takes."""
    match step:
        case Smoke():
            return "smoke"
        case Weight():
            return f"weight {step.percent:g}%"
        case Analyse():
            return f"analyse {time(step.seconds)}"
        case Ramp():
            return f"ramp {step.percent:g}% by {step.by:g}% every {time(step.every_s)}"
        case Pause():
            return f"pause {time(step.seconds)}" if step.seconds else "pause"
        case Approve():
            return f"approve {time(step.limit_s)}" if step.limit_s else "approve"


def time(length_s: float) -> str:
    """Seconds as `parse` takes them, in the largest unit that they are a whole number of."""
    for unit in ("d", "h", "m", "s"):
        if length_s >= _UNITS[unit] and length_s % _UNITS[unit] == 0:
            return f"{length_s / _UNITS[unit]:.0f}{unit}"
    return f"{round(length_s * 1000)}ms"
