"""Which check is looked at next. Pure: the caller brings the time and the spread.

No check is looked at twice at once, and `at_once` looks run at the same time. Checks whose last look ran into its
timeout wait in a queue of their own and take only half of these places: a thousand hanging services do not stop
the others' checks.
"""

from __future__ import annotations

import heapq

FIRST_WITHIN_S = 10.0


class Rounds:
    """The checks' next times."""

    def __init__(self, at_once: int) -> None:
        self._places = at_once
        self._slow_places = max(1, at_once // 2)
        self._every_s: dict[str, float] = {}
        self._next: dict[str, float] = {}
        self._slow: set[str] = set()
        self._queues: dict[bool, list[tuple[float, str]]] = {True: [], False: []}
        """The slow and the quick; an entry counts while it says what `_next` says."""
        self._running: dict[str, bool] = {}
        """Whether each one took a slow place."""
        self._slow_running = 0

    def follow(self, check_id: str, every_s: float, now: float, spread: float) -> None:
        """The check is looked at every `every_s`, first after the part `spread` (0 to 1) of that, 10 s at most."""
        self._every_s[check_id] = every_s
        self._slow.discard(check_id)
        self._set(check_id, now + min(every_s, FIRST_WITHIN_S) * spread)

    def forget(self, check_id: str) -> None:
        """The check is looked at no more; a look that runs may end."""
        self._every_s.pop(check_id, None)
        self._next.pop(check_id, None)
        self._slow.discard(check_id)

    def next(self) -> float | None:
        """When `due` has something next; None: not before a look ends or a check is followed."""
        times = [
            queue[0][0] for slow in (True, False) if self._free(slow=slow) and (queue := self._queue(slow))
        ]
        return min(times, default=None)

    def due(self, now: float) -> list[str]:
        """The checks to look at now; each runs until `done`."""
        found = []
        # The slow first: under load they would never come, and a service that is well again stay down.
        for slow in (True, False):
            while self._free(slow=slow) and (queue := self._queue(slow)) and queue[0][0] <= now:
                _, check_id = heapq.heappop(queue)
                del self._next[check_id]
                self._running[check_id] = slow
                self._slow_running += slow
                found.append(check_id)
        return found

    def done(self, check_id: str, now: float, *, timed_out: bool) -> None:
        """The look has ended; the next one comes after the check's interval."""
        self._slow_running -= self._running.pop(check_id)
        every_s = self._every_s.get(check_id)
        if every_s is None:
            return
        anew = self._next.get(check_id)
        if anew is None and timed_out:
            self._slow.add(check_id)
        elif anew is None:
            self._slow.discard(check_id)
        self._set(check_id, now + every_s if anew is None else anew)

    def _set(self, check_id: str, at: float) -> None:
        self._next[check_id] = at
        heapq.heappush(self._queues[check_id in self._slow], (at, check_id))

    def _free(self, *, slow: bool) -> bool:
        if len(self._running) >= self._places:
            return False
        return not slow or self._slow_running < self._slow_places

    def _queue(self, slow: bool) -> list[tuple[float, str]]:
        """The queue, with an entry on top that holds."""
        queue = self._queues[slow]
        while queue and (queue[0][1] in self._running or self._next.get(queue[0][1]) != queue[0][0]):
            heapq.heappop(queue)
        return queue
