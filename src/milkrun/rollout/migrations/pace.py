"""How fast a backfill may go, from what is seen of those whom it could slow down. Pure."""

from __future__ import annotations

import msgspec

from milkrun.settings.migration import MigrationSettings

SLOWEST = 16
"""A batch never gets smaller than this part of the settings' own."""
PAUSE_S_AT_MOST = 5.0


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen now; None where nothing is known."""

    p99_ms: float | None = None
    replica_lag_s: float | None = None
    dead_rows: float | None = None


class Pace(msgspec.Struct, frozen=True):
    """The next batch has `size` rows (0: none yet), after `pause_s`; `why` it is slow, or empty."""

    size: int
    pause_s: float = 0.0
    why: str = ""


def pace(before: int, seen: Pressure, settings: MigrationSettings) -> Pace:
    """Half as fast with each look while a limit is passed, not at all at twice the limit, then slowly faster."""
    most = settings.batch
    over = [
        (value / limit, f"{name} {value:g}, above {limit:g}")
        for name, value, limit in (
            ("p99 in ms", seen.p99_ms, settings.p99_ms_at_most),
            ("replicas behind in s", seen.replica_lag_s, settings.replica_lag_s_at_most),
            ("dead rows", seen.dead_rows, settings.dead_rows_at_most),
        )
        if limit and value is not None and value > limit
    ]
    least = max(1, most // SLOWEST)
    if not over:
        return Pace(min(most, max(before, least) + max(1, most // 10)))
    worst, why = max(over)
    if worst >= 2:
        return Pace(0, 1.0, why)
    return Pace(max(least, before // 2), min(PAUSE_S_AT_MOST, 0.25 * worst), why)
