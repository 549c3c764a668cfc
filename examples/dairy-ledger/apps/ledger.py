"""A milk ledger: it writes down bottles in PostgreSQL, and tells the last ones.

Its clients see the same in every version. What differs are the columns that its queries name: 1.0 has `label` and
`amount`, 2.0 `farmer`, `goat` and `amount`, 3.0 `litres`. Versions run beside one another, on one table.

    POST /bottles             {"ticket": uuid, "farmer": "anna", "goat": "heidi", "litres": 1.5}: written down, once
    PUT /bottles/<ticket>     the same without the ticket: corrected
    GET /bottles              the last ten
    GET /health               200 while this ledger works; it says nothing about the database

Who it is and where it listens come from the agent, as with the goats; DATABASE_FILE names a file with the database's
URL. The agent also sets PGAPPNAME, by which the database knows whose sessions these are.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from aiohttp import web

STOP_LIMIT_S = 8
SESSIONS = 4
TRIES = 8
AGAIN = ("40P01", "40001", "08", "57P")
"""What may pass the next time: a deadlock that was broken, a conflict, a lost connection, a server that restarts."""
NAME = re.compile(r"[a-z]{1,40}")


class Queries(NamedTuple):
    """What a version says to the database. Each names its columns: `*` would be others after a migration."""

    write: str
    correct: str
    last: str


def queries(columns: str, values: str, read: str) -> Queries:
    """The queries for these columns, the values that go there, and what makes farmer, goat and litres of them."""
    return Queries(
        f"INSERT INTO bottles (ticket, {columns}) VALUES (%(ticket)s, {values}) ON CONFLICT (ticket) DO NOTHING",
        f"UPDATE bottles SET ({columns}) = ROW ({values}) WHERE ticket = %(ticket)s",
        f"SELECT ticket, {read} FROM bottles ORDER BY id DESC LIMIT 10",
    )


VERSIONS = {
    "1.0": queries(
        "label, amount",
        "%(farmer)s::text || '/' || %(goat)s::text, %(litres)s",
        "split_part(label, '/', 1), split_part(label, '/', 2), amount",
    ),
    "2.0": queries("farmer, goat, amount", "%(farmer)s, %(goat)s, %(litres)s", "farmer, goat, amount"),
    "3.0": queries("farmer, goat, litres", "%(farmer)s, %(goat)s, %(litres)s", "farmer, goat, litres"),
}


class Database:
    """A few sessions, each opened when it is needed first, and again after it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: asyncio.LifoQueue[psycopg.AsyncConnection[Any] | None] = asyncio.LifoQueue()
        for _ in range(SESSIONS):
            self._free.put_nowait(None)

    async def run(self, query: str, values: dict[str, Any] | None = None) -> psycopg.AsyncCursor[Any]:
        """What the query gives. It is tried again while the reason may pass: so it has to bear being run twice."""
        for more in reversed(range(TRIES)):
            try:
                return await self._once(query, values)
            except psycopg.Error as error:
                if not more or not (error.sqlstate or "08").startswith(AGAIN):
                    raise
            await asyncio.sleep(random.uniform(0.01, 0.1) * (TRIES - more))
        raise AssertionError

    async def _once(self, query: str, values: dict[str, Any] | None) -> psycopg.AsyncCursor[Any]:
        session = await self._free.get()
        try:
            if session is None or session.closed:
                session = await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5)
            return await session.execute(query, values)
        finally:
            self._free.put_nowait(session)

    async def close(self) -> None:
        """No session of ours is left."""
        for _ in range(SESSIONS):
            session = await self._free.get()
            if session:
                await session.close()


class Ledger:
    """What it answers."""

    def __init__(self, version: str) -> None:
        self.name = {key: os.environ[f"MILKRUN_{key.upper()}"] for key in ("service", "version", "instance")}
        self.queries = VERSIONS[version]
        self.database = Database(Path(os.environ["DATABASE_FILE"]).read_text().strip())

    async def write(self, request: web.Request) -> web.Response:
        """The bottle is in the ledger; a second time it was there."""
        bottle = await read(request)
        done = await self.database.run(self.queries.write, bottle)
        return self.answer(request, written=done.rowcount)

    async def correct(self, request: web.Request) -> web.Response:
        """The bottle is in the ledger as it is said now."""
        bottle = await read(request, request.match_info["ticket"])
        done = await self.database.run(self.queries.correct, bottle)
        if not done.rowcount:
            raise web.HTTPNotFound(text="no such bottle")
        return self.answer(request, written=done.rowcount)

    async def last(self, request: web.Request) -> web.Response:
        """The last ten bottles."""
        rows = await (await self.database.run(self.queries.last)).fetchall()
        keys = ("ticket", "farmer", "goat", "litres")
        return self.answer(request, bottles=[dict(zip(keys, map(str, row), strict=True)) for row in rows])

    async def health(self, _: web.Request) -> web.Response:
        """Whether this ledger works. Were it to speak of the database, a restart of that would take all of them out."""
        return web.json_response({"status": "ok"})

    def answer(self, request: web.Request, **what: Any) -> web.Response:
        """With the name of who answers, and the request's own id."""
        asked = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        return web.json_response({"ledger": self.name, "request": asked, **what})

    async def working(self, _: web.Application) -> AsyncIterator[None]:
        """The sessions say good-bye when the app ends, and the server's log knows of no lost one."""
        yield
        await self.database.close()


async def read(request: web.Request, ticket: str = "") -> dict[str, Any]:
    """The bottle in a request, or 400."""
    try:
        said = await request.json(loads=partial(json.loads, parse_float=Decimal))
        litres = Decimal(said["litres"])
        bottle = {"ticket": uuid.UUID(ticket or said["ticket"]), "litres": litres}
        names = {key: NAME.fullmatch(said[key])[0] for key in ("farmer", "goat")}
        good = 0 < litres < 1000
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        good = False
    if not good:
        raise web.HTTPBadRequest(text="no bottle: it has ticket, farmer, goat and litres")
    return bottle | names


def main(version: str) -> None:
    """Keeps the ledger until SIGTERM: then no new connections, the requests in flight are finished, exit 0."""
    if version not in VERSIONS:
        sys.exit(f"there is no version {version} of the ledger, only {', '.join(VERSIONS)}")
    ledger = Ledger(version)
    app = web.Application()
    app.router.add_post("/bottles", ledger.write)
    app.router.add_put("/bottles/{ticket}", ledger.correct)
    app.router.add_get("/bottles", ledger.last)
    app.router.add_get("/health", ledger.health)
    app.cleanup_ctx.append(ledger.working)
    address, port = os.environ["MILKRUN_ADDRESS"], int(os.environ["MILKRUN_PORT"])
    print(f"{ledger.name['instance']} keeps its ledger at {address}:{port}", flush=True)
    web.run_app(app, host=address, port=port, shutdown_timeout=STOP_LIMIT_S, access_log=None, print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
