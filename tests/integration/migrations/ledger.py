"""Clients of both versions of a milk ledger that never stop asking, and the scripts of its rename."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager

import psycopg

EXPAND = b"""
ALTER TABLE bottles ADD COLUMN goat text;
-- milkrun: sync table=bottles old=name new=goat
ALTER TABLE bottles ALTER COLUMN name DROP NOT NULL;
CREATE INDEX CONCURRENTLY bottles_goat ON bottles (goat);
ALTER TABLE bottles ADD CONSTRAINT bottles_litres CHECK (litres > 0) NOT VALID;
ALTER TABLE bottles VALIDATE CONSTRAINT bottles_litres;
"""
BACKFILL = b"""
-- milkrun: backfill table=bottles key=id
UPDATE bottles SET goat = name WHERE id BETWEEN :from AND :upto AND goat IS NULL;
"""
VERIFY = b"SELECT count(*) FROM bottles WHERE goat IS DISTINCT FROM name;"
CONTRACT = b"ALTER TABLE bottles DROP COLUMN name;"
UNDO = b"""
DROP INDEX CONCURRENTLY IF EXISTS bottles_goat;
ALTER TABLE bottles DROP CONSTRAINT IF EXISTS bottles_litres;
ALTER TABLE bottles DROP COLUMN IF EXISTS goat;
"""


class Crowd:
    """What became of the clients' statements."""

    def __init__(self) -> None:
        self.answered, self.litres, self.slowest_ms = 0, 0, 0.0
        self.errors: list[str] = []
        self.ended = False


async def _client(url: str, crowd: Crowd, column: str, version: str) -> None:
    rng = random.Random(version)
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name=f"ledger/{version}/1"
    ) as connection:
        while not crowd.ended:
            litres = rng.randint(1, 9)
            dice = rng.random()
            began = time.perf_counter()
            try:
                if dice < 0.3:
                    await connection.execute(
                        f"insert into bottles ({column}, litres) values (%s, %s)", (f"goat{litres}", litres)
                    )
                    crowd.litres += litres
                elif dice < 0.6:
                    await connection.execute(
                        f"update bottles set {column} = %s where id = %s", (version, rng.randint(1, 5000))
                    )
                else:
                    await connection.execute(
                        f"select id, {column}, litres from bottles where id = %s", (rng.randint(1, 5000),)
                    )
                crowd.answered += 1
            except psycopg.Error as error:
                crowd.errors.append(error.sqlstate or "")
                await asyncio.sleep(0.01)
            crowd.slowest_ms = max(crowd.slowest_ms, 1000 * (time.perf_counter() - began))


@asynccontextmanager
async def clients(url: str, *columns: tuple[str, str]):
    """One client for each (column, version), until the end; what became of them is the crowd."""
    crowd = Crowd()
    async with asyncio.TaskGroup() as tasks:
        for column, version in columns:
            tasks.create_task(_client(url, crowd, column, version))
        try:
            yield crowd
        finally:
            crowd.ended = True


async def answered(crowd: Crowd, more: int) -> None:
    """So many more statements have been answered or refused."""
    until = crowd.answered + len(crowd.errors) + more
    while crowd.answered + len(crowd.errors) < until:
        await asyncio.sleep(0.005)


def one(url: str, query: str):
    """The one value that the query gives."""
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone()[0]
