"""Which deadlines come next. Pure: the caller brings the time, from any clock that only goes forward."""

from __future__ import annotations

import heapq
from enum import StrEnum


class Timer(StrEnum):
    """What a deadline is for."""

    TTL = "ttl"
    """A TTL check that nobody reported to turns critical."""
    REAP = "reap"
    """A service that was critical for too long is deregistered."""
    SESSION = "session"
    """A session that was not renewed ends."""
    LOCK_DELAY = "lock-delay"
    """A key whose holder died may be locked again."""


class Deadlines:
    """A heap that holds one entry a timer, however often the timer is moved."""

    def __init__(self) -> None:
        self._at: dict[tuple[Timer, str], float] = {}
        self._heap: list[tuple[float, Timer, str]] = []
        self._queued: dict[tuple[Timer, str], float] = {}

    def set(self, timer: Timer, key: str, at: float) -> None:
        """The timer goes off at `at`, and not before."""
        self._at[timer, key] = at
        queued = self._queued.get((timer, key))
        if queued is None or queued > at:
            self._queued[timer, key] = at
            heapq.heappush(self._heap, (at, timer, key))

    def cancel(self, timer: Timer, key: str) -> None:
        """The timer does not go off."""
        self._at.pop((timer, key), None)

    def is_set(self, timer: Timer, key: str) -> bool:
        """Whether the timer will go off."""
        return (timer, key) in self._at

    def next(self) -> float | None:
        """A time at or before the next deadline; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[tuple[Timer, str]]:
        """The timers that went off up to `now`; each is told once."""
        gone_off = []
        while self._heap and self._heap[0][0] <= now:
            queued, timer, key = heapq.heappop(self._heap)
            if self._queued.get((timer, key)) != queued:
                continue
            del self._queued[timer, key]
            at = self._at.get((timer, key))
            if at is None:
                continue
            if at > now:
                self._queued[timer, key] = at
                heapq.heappush(self._heap, (at, timer, key))
            else:
                del self._at[timer, key]
                gone_off.append((timer, key))
        return gone_off
