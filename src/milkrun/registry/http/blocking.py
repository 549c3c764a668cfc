"""Queries that wait for news: Consul's rules for `index` and `wait`.

An index that the state has not reached yet waits as well; the answer then carries the state's own, lower one.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from milkrun.registry.duration import seconds
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import authority
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.parked import News, Woken, go_on
from milkrun.registry.refusal import Refused

DEFAULT_WAIT_S = 300.0
WAIT_S_AT_MOST = 600.0
JITTER = 1 / 16


async def answer(
    engine: Engine,
    request: Request,
    topic: str,
    *,
    index: Callable[[], int],
    reply: Callable[[int], Reply],
) -> Reply:
    """The reply to a query on `topic`, at once or when the topic has moved past the index asked with.

    `index` gives the topic's index, `reply` makes the answer that carries it.
    """
    if not request.query:
        return reply(index())
    if request.flag("stale") and request.flag("consistent"):
        raise Refused(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
    wait_s = _wait_s(request)
    seen = _seen(request)
    if not seen or index() > seen:
        return reply(index())
    return _shared(engine, request, await _news(engine, request, topic, wait_s), index(), reply)


async def _news(engine: Engine, request: Request, topic: str, wait_s: float) -> News:
    """Waits for a change, the time, the registry's end, or that the client says no more."""
    if refusal := engine.parked.refusal(request.peer):
        raise Refused(429, refusal)
    with engine.parked.waiting(topic, wait_s * (1 + random.random() * JITTER), request.peer) as waiter:
        request.on_leave(lambda: go_on(waiter, News(Woken.GONE)))
        return await waiter


async def until_news(engine: Engine, request: Request, topic: str) -> None:
    """The topic has changed, or the request's time is over, or nobody waits any more."""
    await _news(engine, request, topic, _wait_s(request))


def _shared(engine: Engine, request: Request, news: News, at: int, reply: Callable[[int], Reply]) -> Reply:
    """The reply, made once for all who asked the same, may see the same and whom the same change woke."""
    if news.why is not Woken.CHANGED:
        return reply(at)
    asked = (at, request.target, authority(engine, request))
    made: Reply | None = news.replies.get(asked)
    if made is None:
        made = news.replies[asked] = reply(at)
    return made


def _seen(request: Request) -> int:
    text = request.one("index")
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) >= 2**64:
        raise Refused(400, "Invalid index")
    return int(text)


def _wait_s(request: Request) -> float:
    text = request.one("wait")
    if not text:
        return DEFAULT_WAIT_S
    try:
        wait_s = seconds(text)
    except ValueError as error:
        raise Refused(400, "Invalid wait time") from error
    return min(wait_s, WAIT_S_AT_MOST) if wait_s > 0 else DEFAULT_WAIT_S
