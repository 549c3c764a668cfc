"""Sessions that hold locks: the tool steps aside, again and again, and clients go on between its tries.

MILKRUN_SOAK=1 lets a transaction stay idle for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import psycopg
import pytest

from milkrun.errors import TimedOut
from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import Address, DatabaseGone, StatementFailed
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.settings.migration import MigrationSettings

from . import ledger

pytestmark = pytest.mark.needs("postgres")

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
IDLE_S = 60 if SOAK else 1
OLD = ("name", "1")
EXPAND = steps(parse(ledger.EXPAND, "expand.sql"), "expand")


def session(address, say=lambda _: None, **settings):
    return opened(address, "ledger", "2", MigrationSettings(**settings), say)


def nightly(url):
    """A session that never ends its transaction by itself."""
    return contextlib.closing(psycopg.connect(url, application_name="nightly-batch"))


async def test_an_idle_transaction_holds_up_the_tool_and_nobody_else(url, address):
    waits = asyncio.Queue()

    def say(text):
        if "waits for a lock" in text:
            waits.put_nowait(text)

    async def expands():
        async with session(address, say) as here:
            return await apply(here, EXPAND)

    tries = 0
    async with ledger.elsewhere(url, OLD, OLD) as crowd, asyncio.TaskGroup() as tasks:
        await ledger.each_answered(crowd, 2)
        with nightly(url) as batch:
            batch.execute("select count(*) from bottles")
            ends = time.monotonic() + IDLE_S
            expanding = tasks.create_task(expands())
            while tries < 3 or time.monotonic() < ends:
                said = await waits.get()
                tries += 1
                # Each of the clients is answered between any two tries: nobody waits for longer than one of them.
                await ledger.each_answered(crowd, 2)
            assert "expand.sql:2: waits for a lock: held by nightly-batch (pid " in said
            assert "idle in transaction" in said
            assert not expanding.done()
        assert await expanding == 7
    print(f"\nidle in transaction for {IDLE_S} s: {tries} tries; {crowd.told()}")
    assert crowd.errors == []


async def test_an_index_that_waits_for_a_transaction_says_for_whom(url, address):
    """Nobody waits behind it, so it is not taken back, whatever the role's own limit; but who looks on has to know."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"alter database {connection.info.dbname} set statement_timeout = '20ms'".encode())
    unlimited = f"{url}&options=-c%20statement_timeout%3D0"
    said = asyncio.Queue()

    async def builds():
        plan = steps(parse(b"create index concurrently one on bottles (name)", "e.sql"), "expand")
        async with session(address, said.put_nowait) as here:
            return await apply(here, plan)

    async with ledger.clients(unlimited, OLD) as crowd, asyncio.TaskGroup() as tasks:
        with nightly(unlimited) as batch:
            batch.execute("update bottles set litres = 2 where id = 1")
            building = tasks.create_task(builds())
            assert await said.get() == "e.sql:1: expand 1/1"
            text = await said.get()
            assert text.startswith("e.sql:1: waits for a lock: held by nightly-batch (pid ")
            await ledger.answered(crowd, 20)
        assert await building == 1
    assert crowd.errors == []
    assert ledger.one(url, "select indisvalid from pg_index where indexrelid = 'one'::regclass") is True


async def test_when_the_budget_ends_it_is_told_who_and_clients_have_not_noticed(url, address):
    async with ledger.elsewhere(url, OLD, OLD) as crowd:
        await ledger.each_answered(crowd, 2)
        with nightly(url) as batch:
            batch.execute("select count(*) from bottles")
            async with session(address, lock_budget_s=1) as here:
                with pytest.raises(
                    TimedOut, match=r"expand.sql:2: no lock in 1 s and \d+ tries: held by nightly"
                ):
                    await apply(here, EXPAND)
                assert await here.record.entries() == {}
        await ledger.each_answered(crowd, 2)
    print(f"\nuntil the budget ended: {crowd.told()}")
    assert crowd.errors == []


async def test_a_row_that_somebody_keeps_locked_stops_a_backfill_which_then_goes_on(url, address):
    plan = parse(ledger.BACKFILL, "backfill.sql")
    async with session(address) as here:
        await apply(here, EXPAND)
    seen = []
    with nightly(url) as batch:
        batch.execute("update bottles set litres = 3 where id = 2500")
        async with session(address, lock_budget_s=0.3, batch=1000) as here:
            with pytest.raises(TimedOut, match=r"backfill.sql:3: no lock in 0.3 s .* held by nightly-batch"):
                await backfill(here, plan, lambda now: seen.append(now.rows))
            # Clients that change other rows of that batch go on: it was taken back.
            batch.execute("update bottles set litres = 3 where id = 2501")
    assert seen[-1] == 2000
    async with session(address) as here:
        await backfill(here, plan, lambda now: seen.append(now.rows))
    assert seen[-1] == 5000
    assert ledger.one(url, "select count(*) from bottles where goat is distinct from name") == 0


class Reader:
    """Reads goats first and bottles then, in one transaction; dropping the key between them goes the other way."""

    def __init__(self, url):
        self.url, self.errors, self.rounds = url, [], 0
        self.between = asyncio.Event()
        self.further = asyncio.Event()

    async def run(self):
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute("set deadlock_timeout = '1min'")
            await connection.commit()
            await connection.execute("select count(*) from goats")
            self.between.set()
            await self.further.wait()
            await connection.execute("select count(*) from bottles")
            await connection.commit()
            self.rounds += 1


async def waiting(url):
    """Somebody waits for a lock."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as look:
        while not await (await look.execute("select 1 from pg_locks where not granted")).fetchone():
            await asyncio.sleep(0.005)


@pytest.fixture
def goats(url):
    with psycopg.connect(url) as connection:
        connection.execute("create table goats (id int primary key)")
        connection.execute("insert into goats select generate_series(0, 9)")
        connection.execute(
            "alter table bottles add constraint goat_key foreign key (litres) references goats"
        )
    return url


@pytest.mark.parametrize(
    ("lock_timeout_ms", "deadlock_timeout", "reason"),
    [
        (100, "10s", "waits for a lock: held by reader"),
        (1000, "50ms", "waits for a lock: "),
    ],
    ids=["before PostgreSQL looks for deadlocks", "by PostgreSQL's deadlock detector"],
)
async def test_a_reader_that_would_deadlock_gets_its_answer(goats, lock_timeout_ms, deadlock_timeout, reason):
    """It is the tool that ends, by its lock_timeout or chosen by PostgreSQL, and tries again."""
    with psycopg.connect(goats, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"alter database {name} set deadlock_timeout = '{deadlock_timeout}'".encode())
    said = []
    drop = b"alter table bottles drop constraint goat_key"
    reader = Reader(goats + "&application_name=reader")

    async def drops():
        async with session(Address(goats), said.append, lock_timeout_ms=lock_timeout_ms) as here:
            return await apply(here, steps(parse(drop, "undo.sql"), "undo"))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reader.run())
        await reader.between.wait()
        dropping = tasks.create_task(drops())
        await waiting(goats)  # it has bottles, and waits for goats
        reader.further.set()
        assert await dropping == 1
    assert reader.rounds == 1
    assert any(reason in text for text in said)
    assert ledger.one(goats, "select count(*) from pg_constraint where conname = 'goat_key'") == 0


@pytest.mark.parametrize(
    ("by", "kind", "says"),
    [
        ("pg_cancel_backend", StatementFailed, r"e.sql:1: canceling statement due to user request \(57014\)"),
        ("pg_terminate_backend", DatabaseGone, "e.sql:1: the connection to the database was lost"),
    ],
)
async def test_somebody_ends_the_statement_by_hand(url, address, by, kind, says):
    """It is told as it was, and not as a statement that took too long."""
    slow = b"alter table bottles add x int default length(pg_sleep(60)::text)"
    plan = steps(parse(slow, "e.sql"), "expand")

    async def ends(pid):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as hand:
            active = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
            while not await (await hand.execute(active, (pid,))).fetchone():
                await asyncio.sleep(0.005)
            await hand.execute(f"select {by}(%s)".encode(), (pid,))

    async with asyncio.TaskGroup() as tasks, session(address, statement_limit_ms=60_000) as here:
        tasks.create_task(ends(here.connection.info.backend_pid))
        with pytest.raises(kind, match=says):
            await apply(here, plan)
    async with session(address) as here:
        assert await here.record.entries() == {}
