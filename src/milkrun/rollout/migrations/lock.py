"""One at a time migrates a service's database: an advisory lock that lives and dies with its connection.

It belongs to the session and not to a transaction, because CREATE INDEX CONCURRENTLY is in none.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from milkrun.errors import Conflict, MilkrunError
from milkrun.model import ServiceName
from milkrun.rollout.migrations.database import Connection, translated

_KEY = "hashtextextended('milkrun/' || %s, 0)"
_HOLDER = f"""
SELECT a.application_name, a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = {_KEY}
"""  # noqa: S608 - no value is in it


class Held(Conflict):
    """Somebody else migrates the service's database."""

    code = "migration-held"


@asynccontextmanager
async def held(connection: Connection, service: ServiceName, *, wait_s: float) -> AsyncIterator[None]:
    """Nobody else migrates the service's database meanwhile. Raises Held, with who does, after `wait_s`."""
    until = time.monotonic() + wait_s
    while not await _taken(connection, service):
        if time.monotonic() >= until:
            raise Held(
                f"{await _holder(connection, service)} migrates the database of {service}",
                remedy="wait until it has ended",
            )
        await asyncio.sleep(random.uniform(0.05, 0.25))
    try:
        yield
    finally:
        # A connection that is lost has lost the lock with it.
        with contextlib.suppress(MilkrunError), translated():
            await connection.execute(f"SELECT pg_advisory_unlock({_KEY})", (service,))


async def _taken(connection: Connection, service: ServiceName) -> bool:
    with translated():
        rows = await connection.execute(f"SELECT pg_try_advisory_lock({_KEY})", (service,))
        row = await rows.fetchone()
    return bool(row and row[0])


async def _holder(connection: Connection, service: ServiceName) -> str:
    with translated():
        row = await (await connection.execute(_HOLDER, (service,))).fetchone()
    return f"{row[0] or 'a session without a name'} (pid {row[1]})" if row else "somebody else"
