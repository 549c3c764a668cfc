"""The blocking queries that wait, each on one topic, and who wakes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from milkrun.registry import topics

_UNDER = topics.under("")


class Woken(StrEnum):
    """Why a parked query goes on."""

    CHANGED = "changed"
    TIMED_OUT = "timed out"
    GONE = "client gone"
    CLOSING = "registry closing"


class Parked:
    """Waiters by topic. A change wakes those of its topics and of every prefix of its keys, and no others."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Future[Woken]]] = {}
        self._prefix_lengths: Counter[int] = Counter()
        self.closing = False

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiters.values())

    @contextmanager
    def waiting(self, topic: str, wait_s: float) -> Iterator[asyncio.Future[Woken]]:
        """A future that says why to go on, after `wait_s` at the latest."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Woken] = loop.create_future()
        if self.closing:
            waiter.set_result(Woken.CLOSING)
        timeout = loop.call_later(wait_s, go_on, waiter, Woken.TIMED_OUT)
        waiters = self._waiters.setdefault(topic, set())
        waiters.add(waiter)
        length = len(topic) - len(_UNDER) if topic.startswith(_UNDER) else -1
        self._prefix_lengths[length] += 1
        try:
            yield waiter
        finally:
            timeout.cancel()
            waiters.discard(waiter)
            if not waiters and self._waiters.get(topic) is waiters:
                del self._waiters[topic]
            self._prefix_lengths[length] -= 1
            if not self._prefix_lengths[length]:
                del self._prefix_lengths[length]

    def wake(self, touched: Iterable[str], keys: Iterable[str]) -> None:
        """The waiters of these topics and keys go on."""
        if not self._waiters:
            return
        for topic in touched:
            self._wake(topic)
        for key in keys:
            self._wake(topics.key(key))
            for length in self._prefix_lengths:
                if 0 <= length <= len(key):
                    self._wake(topics.under(key[:length]))

    def close(self) -> None:
        """All waiters go on, and later ones do not wait."""
        self.closing = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                go_on(waiter, Woken.CLOSING)

    def _wake(self, topic: str) -> None:
        for waiter in self._waiters.get(topic, ()):
            go_on(waiter, Woken.CHANGED)


def go_on(waiter: asyncio.Future[Woken], why: Woken) -> None:
    """The waiter goes on, for this reason if for no earlier one."""
    if not waiter.done():
        waiter.set_result(why)
