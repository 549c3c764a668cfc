"""The load itself: requests leave on schedule, whether or not earlier ones were answered.

No request is ever repeated, no redirect followed, no cookie kept, no proxy of the environment used, so one
request in the ledger is one request on the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import assert_never

import aiohttp
from aiohttp import http_exceptions
from yarl import URL

from milkrun.errors import UsageError
from milkrun.load import reasons
from milkrun.load.figures import Connections, Figures, Plan
from milkrun.load.ledger import Ledger

IN_FLIGHT_AT_MOST = 10_000
KEPT_IDLE_S = 3.0
"""A kept connection idle for this long is closed by us: usual servers wait longer, so that theirs and ours
do not cross."""
BODY_READ_AT_MOST = 1 << 20
TICK_S = 1.0


async def run(
    url: str,
    *,
    rate: float,
    duration_s: float,
    connections: Connections = Connections.BOTH,
    timeout_s: float = 10.0,
    on_tick: Callable[[Figures], None] | None = None,
) -> Figures:
    """The figures of `rate` GET requests a second for `duration_s`, when the last one is answered or failed.

    `on_tick` gets the figures so far each second. A cancellation ends the run: it returns the figures so far,
    with `interrupted` set and the unanswered requests as in flight. Each request carries a new X-Request-Id.
    Raises UsageError for a URL, rate or time that cannot be meant.
    """
    plan = Plan(url=url, rate=rate, duration_s=duration_s, connections=connections, timeout_s=timeout_s)
    check(plan)
    _allow_open_files()
    load = _Load(plan)
    try:
        async with _sessions(connections) as sessions:
            await load.run(sessions, on_tick)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task:
            task.uncancel()  # the cancellation ends here: the figures are its answer
        return load.figures(interrupted=True)
    return load.figures()


def check(plan: Plan) -> None:
    """The plan can be carried out; otherwise UsageError says what to write."""
    try:
        url = URL(plan.url)
        good = url.scheme in ("http", "https") and bool(url.host) and bool(url.port)
    except ValueError:
        good = False
    if not good:
        raise UsageError(
            f"{plan.url[:200]!r} is not an HTTP address",
            remedy="for example http://localhost:8212/milk"
            if "://" in plan.url
            else f"http://{plan.url[:200]}",
        )
    for name, value, unit in (
        ("rate", plan.rate, "requests a second"),
        ("duration", plan.duration_s, "seconds"),
        ("timeout", plan.timeout_s, "seconds"),
    ):
        if not 0 < value <= 1_000_000:  # so is NaN
            raise UsageError(
                f"a {name} of {value:g} cannot be",
                remedy=f"give a number of {unit} above 0, and at most a million",
            )


class _Load:
    """One run: the schedule, and each request's way through it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._url = URL(plan.url)
        self._ledger = Ledger(secrets.token_hex(4))
        self._start = time.monotonic()
        self._ended = 0.0

    def figures(self, *, interrupted: bool = False) -> Figures:
        """What came of it until now, or until its end."""
        elapsed_s = (self._ended or time.monotonic()) - self._start
        return self._ledger.figures(self._plan, elapsed_s, interrupted=interrupted)

    async def run(
        self, sessions: list[aiohttp.ClientSession], on_tick: Callable[[Figures], None] | None
    ) -> None:
        """Every request was due, and is answered or failed."""
        self._start = time.monotonic()
        async with asyncio.TaskGroup() as around:
            ticking = around.create_task(self._tick(on_tick)) if on_tick else None
            async with asyncio.TaskGroup() as requests:
                await self._arrive(sessions, requests)
            self._ended = max(time.monotonic(), self._due(self._plan.arrivals))
            if ticking:
                ticking.cancel()

    def _due(self, number: int) -> float:
        return self._start + number / self._plan.rate

    async def _arrive(self, sessions: list[aiohttp.ClientSession], requests: asyncio.TaskGroup) -> None:
        for number in range(self._plan.arrivals):
            due = self._due(number)
            pause_s = due - time.monotonic()
            if pause_s > 0 or number % 64 == 0:  # behind schedule, answers still get their turn
                await asyncio.sleep(max(0.0, pause_s))
            request = self._ledger.sent(due)
            if self._ledger.in_flight > IN_FLIGHT_AT_MOST:
                self._ledger.failed(request, f"{reasons.OVERLOADED}: {IN_FLIGHT_AT_MOST:,} in flight")
                continue
            requests.create_task(self._send(request, sessions[number % len(sessions)]))

    async def _send(self, request: str, session: aiohttp.ClientSession) -> None:
        self._ledger.started(request, time.monotonic())
        headers = {"X-Request-Id": request}
        try:
            async with (
                asyncio.timeout(self._plan.timeout_s),
                session.get(self._url, headers=headers, allow_redirects=False) as answer,
            ):
                body = await _body(answer)
        except (_NoAnswer, aiohttp.ClientError, http_exceptions.HttpProcessingError, OSError) as error:
            broken = error.broken if isinstance(error, _NoAnswer) else error
            self._ledger.failed(request, reasons.why(broken, self._plan.timeout_s))
        else:
            named = answer.headers.get("X-Request-Id", "")
            self._ledger.answered(request, time.monotonic(), answer.status, body, named)

    async def _tick(self, on_tick: Callable[[Figures], None]) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            on_tick(self.figures())


class _NoAnswer(Exception):
    """The request was sent once and got no answer; `broken` says why."""

    def __init__(self, broken: aiohttp.ClientError) -> None:
        super().__init__(str(broken))
        self.broken = broken


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """The answer to the one attempt.

    aiohttp repeats a GET by itself when the connection broke (ClientSession._request, on ClientOSError and
    ServerDisconnectedError). It lets other exceptions through, so these come out as one of ours.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _NoAnswer(error) from error


@contextlib.asynccontextmanager
async def _sessions(connections: Connections) -> AsyncIterator[list[aiohttp.ClientSession]]:
    """The client sessions to take in turn: one keeps its connections, the other makes a new one each time."""
    match connections:
        case Connections.KEEP_ALIVE:
            kinds = [False]
        case Connections.ONE_SHOT:
            kinds = [True]
        case Connections.BOTH:
            kinds = [False, True]
        case _:
            assert_never(connections)
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_session(one_shot=kind)) for kind in kinds]


def _session(*, one_shot: bool) -> aiohttp.ClientSession:
    if one_shot:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
    else:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_IDLE_S)
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": "milkrun-load", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        middlewares=(_once,),
    )


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body if it is small enough to look into; a larger one is read to its end and dropped."""
    if answer.content_length is not None and answer.content_length <= BODY_READ_AT_MOST:
        return await answer.read()
    kept = bytearray()
    whole = True
    async for chunk in answer.content.iter_any():
        whole = whole and len(kept) + len(chunk) <= BODY_READ_AT_MOST
        if whole:
            kept += chunk
    return bytes(kept) if whole else b""


def _allow_open_files() -> None:
    """This process may hold as many sockets as the bound on requests in flight, if the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IN_FLIGHT_AT_MOST + 1000
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
