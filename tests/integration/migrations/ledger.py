"""Clients of both versions of a milk ledger that never stop asking, and the scripts of its rename."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from milkrun.rollout.migrations.script import Directive, parse
from milkrun.rollout.migrations.steps import steps

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
SYNCS = [item for item in parse(EXPAND, "expand.sql").items if isinstance(item, Directive)]
PLANS = {
    "expand": steps(parse(EXPAND, "expand.sql"), "expand"),
    "contract": steps(parse(CONTRACT, "contract.sql"), "contract", ending=SYNCS),
    "undo": steps(parse(UNDO, "undo.sql"), "undo", ending=SYNCS),
}
"""The statements of each phase that changes the schema."""


class Crowd:
    """What became of the clients' statements. `each` has how many each client had answered, refused ones apart."""

    def __init__(self) -> None:
        self.answered, self.litres, self.slowest_ms = 0, 0, 0.0
        self.errors: list[str] = []
        self.each: Counter[int] = Counter()
        self.tenths_ms: Counter[int] = Counter()
        self.ended = False

    def took(self, client: int, took_ms: float, error: str | None) -> None:
        """One statement has ended."""
        if error is None:
            self.answered += 1
            self.each[client] += 1
        else:
            self.errors.append(error)
        self.slowest_ms = max(self.slowest_ms, took_ms)
        self.tenths_ms[round(took_ms * 10)] += 1

    def p99_ms(self) -> float:
        """What 99 of 100 statements took at most."""
        left = 0.99 * sum(self.tenths_ms.values())
        for tenths, count in sorted(self.tenths_ms.items()):
            left -= count
            if left <= 0:
                return tenths / 10
        return 0.0

    def told(self) -> str:
        """A line for people."""
        errors = dict(Counter(self.errors)) or 0
        return (
            f"{self.answered} statements, errors: {errors}, p99 {self.p99_ms():.1f} ms,"
            f" slowest {self.slowest_ms:.0f} ms"
        )


async def _client(url: str, crowd: Crowd, number: int, rows: int, pair: tuple[str, str]) -> None:
    column, version = pair
    rng = random.Random(f"{version}/{number}")
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name=f"ledger/{version}/{number}"
    ) as connection:
        while not crowd.ended:
            litres = rng.randint(1, 9)
            dice = rng.random()
            began = time.perf_counter()
            error = None
            try:
                if dice < 0.3:
                    await connection.execute(
                        f"insert into bottles ({column}, litres) values (%s, %s)", (f"goat{litres}", litres)
                    )
                    crowd.litres += litres
                elif dice < 0.6:
                    await connection.execute(
                        f"update bottles set {column} = %s where id = %s", (version, rng.randint(1, rows))
                    )
                else:
                    await connection.execute(
                        f"select id, {column}, litres from bottles where id = %s", (rng.randint(1, rows),)
                    )
            except psycopg.Error as failed:
                error = failed.sqlstate or ""
                await asyncio.sleep(0.01)
            crowd.took(number, 1000 * (time.perf_counter() - began), error)


@asynccontextmanager
async def clients(url: str, *columns: tuple[str, str], rows: int = 5000):
    """One client for each (column, version), until the end; what became of them is the crowd."""
    crowd = Crowd()
    async with asyncio.TaskGroup() as tasks:
        for number, pair in enumerate(columns, start=1):
            tasks.create_task(_client(url, crowd, number, rows, pair))
        try:
            yield crowd
        finally:
            crowd.ended = True


@asynccontextmanager
async def elsewhere(url: str, *columns: tuple[str, str], rows: int = 5000):
    """The same in a process of its own, which waits for nothing that is done here."""
    crowd = Crowd()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("furious.py")), url, str(rows)),
        *(f"{column}:{version}" for column, version in columns),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip

    async def listen() -> None:
        async for line in process.stdout:
            told = json.loads(line)
            crowd.each, crowd.tenths_ms = (
                Counter(dict(told.pop("each"))),
                Counter(dict(told.pop("tenths_ms"))),
            )
            vars(crowd).update(told)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen())
        try:
            yield crowd
        finally:
            process.stdin.close()
            await process.wait()


async def answered(crowd: Crowd, more: int) -> None:
    """So many more statements have been answered or refused."""
    until = crowd.answered + len(crowd.errors) + more
    while crowd.answered + len(crowd.errors) < until:
        await asyncio.sleep(0.005)


async def each_answered(crowd: Crowd, clients: int, more: int = 2) -> None:
    """Each of so many clients had so many more statements answered."""
    before = Counter(crowd.each)
    while any(crowd.each[number] < before[number] + more for number in range(1, clients + 1)):
        await asyncio.sleep(0.005)


def one(url: str, query: str):
    """The one value that the query gives."""
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone()[0]
