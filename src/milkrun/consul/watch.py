"""A blocking watch on one registry query: each new answer once, whatever the registry does meanwhile.

The rules are Consul's (documentation of blocking queries, and issue hashicorp/consul#5358): an index that
goes backwards or an error starts over from zero; an index of zero counts as one; a filtered or leaderless
answer is an error, because a narrowed token or an election must not look like vanished instances. A registry
that answers at once with nothing new is asked ever more slowly.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
import structlog

from milkrun.consul import wire
from milkrun.consul.client import Answer, Registry, decode
from milkrun.consul.health import HealthReader
from milkrun.errors import MilkrunError, RegistryRefused

WAIT_S = 10
"""A registry that was emptied and is back before a watch could notice has lower indexes than the watch asks with, and
answers such a question only when this is over: so long the watch sees nothing new."""
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0
HELD_BACK_S = 1.0
"""A blocking query that took this long was held back: asking again at once costs nobody much."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a watch stands: the index to ask with (0: at once), the errors since the last answer, and the
    answers in a row that came at once and brought the index no further.
    """

    index: int = 0
    errors: int = 0
    idle: int = 0

    def answered(self, index: int, *, held_back: bool) -> Cursor:
        """The cursor after an answer: at its index, or from zero when that went back.

        `held_back` says that the registry kept the question until its time was over, as it should.
        """
        index = max(1, index)
        if index < self.index:
            return Cursor(idle=self.idle + 1)
        if self.index == 0:
            return Cursor(index=index, idle=self.idle)
        return Cursor(index=index, idle=0 if held_back or index > self.index else self.idle + 1)

    def failed(self) -> Cursor:
        """The cursor after an error: from zero, with one more error to wait for."""
        return Cursor(errors=self.errors + 1, idle=self.idle)

    def pause_s(self, jitter: float) -> float:
        """How long to wait before asking again; `jitter` is uniform in [0, 1)."""
        times = max(self.errors, self.idle)
        if not times:
            return 0.0
        ceiling: float = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(times - 1, 10))
        return ceiling * (0.5 + jitter / 2)


class Watch:
    """Each new answer to a GET, as an async iterator that never ends and never raises for the registry's sake.

    404 counts as an answer (nothing is there). An answer whose body `read` refuses counts as none. While the
    registry does not answer, `trouble` says why.
    """

    def __init__(
        self,
        registry: Registry,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        read: Callable[[bytes], object] = lambda body: body,
    ) -> None:
        self._registry = registry
        self._path = path
        self._params = dict(params or {})
        self._read = read
        self.trouble = ""

    async def __aiter__(self) -> AsyncIterator[Answer]:
        log = structlog.get_logger("watch")
        cursor = Cursor()
        last: Answer | None = None
        while True:
            asked = time.monotonic()
            try:
                answer = await self._ask(cursor)
            except MilkrunError as error:
                if not self.trouble:
                    log.warning(
                        "the registry does not answer; the last answer stays", path=self._path, why=str(error)
                    )
                self.trouble = str(error)
                cursor = cursor.failed()
                await asyncio.sleep(cursor.pause_s(random.random()))
                continue
            if self.trouble:
                log.info("the registry answers again", path=self._path)
            self.trouble = ""
            cursor = cursor.answered(answer.index, held_back=time.monotonic() - asked >= HELD_BACK_S)
            if answer != last:
                last = answer
                yield answer
            await asyncio.sleep(cursor.pause_s(random.random()))

    async def _ask(self, cursor: Cursor) -> Answer:
        params = dict(self._params)
        wait_s = 10.0
        if cursor.index:
            params |= {"index": str(cursor.index), "wait": f"{WAIT_S}s"}
            wait_s = WAIT_S * (1 + 1 / 16) + 10
        answer = await self._registry.ask("GET", self._path, params=params, accept=(200, 404), wait_s=wait_s)
        if answer.doubt:
            raise RegistryRefused(
                answer.doubt,
                status=answer.status,
                remedy="give the token read rights on the services and keys it needs, or see to the registry",
            )
        if answer.status == 200:
            self._read(answer.body)
        return answer


def watch_health(registry: Registry, service: str, reader: HealthReader | None = None) -> Watch:
    """Watches all instances of a service with their checks, healthy or not; `reader` is the one who reads."""
    return Watch(registry, f"/v1/health/service/{service}", read=(reader or HealthReader()).read)


def watch_prefix(registry: Registry, prefix: str) -> Watch:
    """Watches all KV entries whose key starts with `prefix`."""
    return Watch(
        registry, f"/v1/kv/{prefix}", {"recurse": ""}, read=lambda body: decode(body, list[wire.Pair])
    )
