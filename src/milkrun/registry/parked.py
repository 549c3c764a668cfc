"""The blocking queries that wait, each on one topic, and who wakes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from milkrun.registry import topics

_UNDER = topics.under("")


class Woken(StrEnum):
    """Why a parked query goes on."""

    CHANGED = "changed"
    TIMED_OUT = "timed out"
    GONE = "client gone"
    CLOSING = "registry closing"


class News:
    """Why parked queries go on. Those that one change wakes share it, and the replies that they make of it."""

    __slots__ = ("replies", "why")

    def __init__(self, why: Woken) -> None:
        self.why = why
        self.replies: dict[Hashable, Any] = {}


class Parked:
    """Waiters by topic. A change wakes those of its topics and of every prefix of its keys, and no others."""

    def __init__(self, *, in_all: int = 20_000, per_address: int = 6_144) -> None:
        self._in_all, self._per_address = in_all, per_address
        self._by_address: Counter[str] = Counter()
        self._waiters: dict[str, set[asyncio.Future[News]]] = {}
        self._prefix_lengths: Counter[int] = Counter()
        self._count = 0
        self.closing = False

    def __len__(self) -> int:
        return self._count

    def refusal(self, address: str) -> str:
        """Why nobody more from this address may wait; empty when somebody may."""
        if self._count >= self._in_all:
            return f"Too many blocking queries: {self._in_all} wait already"
        if self._by_address[address] >= self._per_address:
            return f"Too many blocking queries: {self._per_address} of your address wait already"
        return ""

    @contextmanager
    def waiting(self, topic: str, wait_s: float, address: str = "") -> Iterator[asyncio.Future[News]]:
        """A future that says why to go on, after `wait_s` at the latest."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[News] = loop.create_future()
        if self.closing:
            waiter.set_result(News(Woken.CLOSING))
        timeout = loop.call_later(wait_s, go_on, waiter, News(Woken.TIMED_OUT))
        waiters = self._waiters.setdefault(topic, set())
        waiters.add(waiter)
        length = len(topic) - len(_UNDER) if topic.startswith(_UNDER) else -1
        self._prefix_lengths[length] += 1
        self._count += 1
        self._by_address[address] += 1
        try:
            yield waiter
        finally:
            timeout.cancel()
            self._count -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
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
        news = News(Woken.CHANGED)
        for topic in touched:
            self._wake(topic, news)
        for key in keys:
            self._wake(topics.key(key), news)
            for length in self._prefix_lengths:
                if 0 <= length <= len(key):
                    self._wake(topics.under(key[:length]), news)

    def close(self) -> None:
        """All waiters go on, and later ones do not wait."""
        self.closing = True
        news = News(Woken.CLOSING)
        for waiters in self._waiters.values():
            for waiter in waiters:
                go_on(waiter, news)

    def _wake(self, topic: str, news: News) -> None:
        for waiter in self._waiters.get(topic, ()):
            go_on(waiter, news)


def go_on(waiter: asyncio.Future[News], news: News) -> None:
    """The waiter goes on, for this reason if for no earlier one."""
    if not waiter.done():
        waiter.set_result(news)
