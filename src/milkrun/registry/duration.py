"""Durations as Go writes them: `15s`, `1m30s`, `0.001s`, `60000ms`. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST = 64
_LARGEST = 2**63 - 1


def nanoseconds(text: str) -> int:
    """The duration in nanoseconds. Raises ValueError, with Go's text, for anything that Go would refuse."""
    refused = ValueError(f'time: invalid duration "{text[:_LONGEST]}"')
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    if not rest or len(text) > _LONGEST:
        raise refused
    total = Decimal(0)
    place = 0
    while place < len(rest):
        part = _PART.match(rest, place)
        if part is None:
            raise refused
        total += Decimal(part[1]) * _NANOSECONDS[part[2]]
        place = part.end()
    if total > _LARGEST:
        raise refused
    return sign * int(total)


def counted(number: float, unit_ns: int = 1) -> int:
    """So many units in nanoseconds. Raises ValueError for more than Go's durations hold."""
    total = number * unit_ns
    if not -_LARGEST <= total <= _LARGEST:
        raise ValueError("time: a number is too large for a duration")
    return int(total)


def seconds(text: str) -> float:
    """The duration in seconds. Raises ValueError as `nanoseconds` does."""
    return nanoseconds(text) / 1e9


def spelled(duration_s: float) -> str:
    """The duration as Go writes it, to the microsecond: `24h0m0s`, `1m0.5s`, `200ms`."""
    sign, micros = ("-" if duration_s < 0 else ""), round(abs(duration_s) * 1e6)
    if 0 < micros < 1_000_000:
        return f"{sign}{micros / 1e3:g}ms" if micros >= 1000 else f"{sign}{micros}µs"
    minutes, micros = divmod(micros, 60_000_000)
    rest = f"{micros / 1e6:.6f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return sign + rest
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{rest}" if hours else f"{sign}{minutes}m{rest}"
