"""A blocking watch on one registry query: each new answer once, whatever the registry does meanwhile.

The rules are Consul's (documentation of blocking queries, and issue hashicorp/consul#5358): an index that
goes backwards or an error starts over from zero; an index of zero counts as one; a filtered answer is an
error, because a narrowed token must not look like vanished instances.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
import structlog

from milkrun.consul import wire
from milkrun.consul.client import Answer, Registry, decode
from milkrun.errors import MilkrunError, RegistryRefused

WAIT_S = 60
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0


class Cursor(msgspec.Struct, frozen=True):
    """Where a watch stands: the index to ask with (0: at once) and the errors since the last answer."""

    index: int = 0
    errors: int = 0

    def answered(self, index: int) -> Cursor:
        """The cursor after an answer with this index: forward, or from zero when the index went back."""
        index = max(1, index)
        return Cursor(index=index if index >= self.index else 0)

    def failed(self) -> Cursor:
        """The cursor after an error: from zero, with one more error to wait for."""
        return Cursor(index=0, errors=self.errors + 1)

    def retry_s(self, jitter: float) -> float:
        """How long to wait before asking again; `jitter` is uniform in [0, 1)."""
        ceiling: float = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self.errors - 1, 10))
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
            try:
                answer = await self._ask(cursor)
            except MilkrunError as error:
                if not self.trouble:
                    log.warning(
                        "the registry does not answer; the last answer stays", path=self._path, why=str(error)
                    )
                self.trouble = str(error)
                cursor = cursor.failed()
                await asyncio.sleep(cursor.retry_s(random.random()))  # noqa: S311
                continue
            if self.trouble:
                log.info("the registry answers again", path=self._path)
            self.trouble = ""
            cursor = cursor.answered(answer.index)
            if last is None or answer != last:
                last = answer
                yield answer

    async def _ask(self, cursor: Cursor) -> Answer:
        params = dict(self._params)
        wait_s = 10.0
        if cursor.index:
            params |= {"index": str(cursor.index), "wait": f"{WAIT_S}s"}
            wait_s = WAIT_S * (1 + 1 / 16) + 10
        answer = await self._registry.ask("GET", self._path, params=params, accept=(200, 404), wait_s=wait_s)
        if answer.filtered:
            raise RegistryRefused(
                "the registry shows this token only a part of the answer",
                status=200,
                remedy="give the token read rights on the services and keys it needs",
            )
        if answer.status == 200:
            self._read(answer.body)
        return answer


def watch_health(registry: Registry, service: str) -> Watch:
    """Watches all instances of a service with their checks, healthy or not."""
    return Watch(
        registry, f"/v1/health/service/{service}", read=lambda body: decode(body, list[wire.HealthEntry])
    )


def watch_prefix(registry: Registry, prefix: str) -> Watch:
    """Watches all KV entries whose key starts with `prefix`."""
    return Watch(
        registry, f"/v1/kv/{prefix}", {"recurse": ""}, read=lambda body: decode(body, list[wire.Pair])
    )
