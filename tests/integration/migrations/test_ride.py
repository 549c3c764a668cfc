"""A rename under clients of both versions: nobody notices."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from milkrun.errors import Conflict, MilkrunError, TimedOut
from milkrun.rollout.migrations import session as sessions
from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import Address, DatabaseGone
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.rollout.migrations.verify import verify
from milkrun.settings.migration import MigrationSettings

from . import ledger

pytestmark = pytest.mark.needs("postgres")

SETTINGS = MigrationSettings(batch=200, lock_budget_s=30)
OLD, NEW = ("name", "1"), ("goat", "2")


def quiet(text):
    pass


def session(address, say=quiet, settings=SETTINGS):
    return opened(address, "ledger", "2", settings, say)


def script(data, file):
    return parse(data, file)


async def expanded(address, say=quiet):
    async with session(address, say) as here:
        return await apply(here, steps(script(ledger.EXPAND, "expand.sql"), "expand"))


async def test_both_versions_write_through_expansion_backfill_and_check(url, address):
    before = ledger.one(url, "select sum(litres) from bottles")
    seen = []
    async with ledger.clients(url, OLD, OLD) as old:
        await ledger.answered(old, 20)
        assert await expanded(address) == 7
        async with ledger.clients(url, NEW, NEW) as new:
            await ledger.answered(new, 20)
            async with session(address) as here:
                await backfill(here, script(ledger.BACKFILL, "backfill.sql"), seen.append)
                await ledger.answered(old, 20)
                await ledger.answered(new, 20)
                assert await verify(here, script(ledger.VERIFY, "verify.sql")) == []
    assert (old.errors, new.errors) == ([], [])
    assert ledger.one(url, "select sum(litres) from bottles") == before + old.litres + new.litres
    assert (
        ledger.one(url, "select count(*) from bottles where goat is distinct from name or goat is null") == 0
    )
    assert seen[-1].rows >= 5000
    assert seen[0].total is not None


async def test_without_the_trigger_the_check_says_so(url, address):
    async with session(address) as here:
        await apply(here, steps(script(b"alter table bottles add goat text", "e.sql"), "expand"))
        (wrong,) = await verify(here, script(ledger.VERIFY, "verify.sql"))
        assert (wrong.place, wrong.number) == ("verify.sql:1", 5000)
        for nothing in (b"select null::int", b"select 1, 2", b"select 'well'", b"select id from bottles"):
            with pytest.raises(MilkrunError, match="one whole number"):
                await verify(here, script(nothing, "verify.sql"))


async def test_the_tool_steps_aside_and_names_who_is_in_the_way(url, address):
    waits = asyncio.Queue()
    with psycopg.connect(url, application_name="nightly-batch") as batch:
        batch.execute("select count(*) from bottles")
        async with ledger.clients(url, OLD) as crowd, asyncio.TaskGroup() as tasks:
            expanding = tasks.create_task(
                expanded(address, lambda text: "waits" in text and waits.put_nowait(text))
            )
            for _ in range(3):
                said = await waits.get()
                await ledger.answered(crowd, 20)  # they go on between the tries
            assert "expand.sql:2: waits for a lock: held by nightly-batch (pid " in said
            assert "idle in transaction" in said
            batch.commit()
            await expanding
    assert crowd.errors == []


async def test_when_the_budget_ends_nothing_was_changed_and_it_says_who(url, address):
    settings = MigrationSettings(lock_budget_s=0.3)
    with psycopg.connect(url, application_name="nightly-batch") as batch:
        batch.execute("select count(*) from bottles")
        async with session(address, settings=settings) as here:
            with pytest.raises(TimedOut, match=r"no lock in 0.3 s and .* held by nightly-batch"):
                await apply(here, steps(script(ledger.EXPAND, "expand.sql"), "expand"))
            assert await here.record.entries() == {}
    assert await expanded(address) == 7


async def test_a_rewrite_is_taken_back_when_it_takes_too_long(url, address):
    settings = MigrationSettings(statement_limit_ms=100)
    async with session(address, settings=settings) as here:
        with pytest.raises(MilkrunError, match=r"e.sql:1: it had its locks for 100 ms"):
            await apply(
                here,
                steps(
                    script(b"alter table bottles add x int default length(pg_sleep(1)::text)", "e.sql"),
                    "expand",
                ),
            )


async def test_an_index_left_half_built_is_built_again(url, address):
    create = b"create unique index concurrently one_each on bottles (name)"
    plan = steps(script(create, "e.sql"), "expand")
    with pytest.raises(psycopg.errors.UniqueViolation), psycopg.connect(url, autocommit=True) as connection:
        connection.execute(create)
    assert ledger.one(url, "select indisvalid from pg_index where indexrelid = 'one_each'::regclass") is False
    async with session(address) as here:
        with pytest.raises(MilkrunError, match=r"e.sql:1: could not create unique index"):
            await apply(here, plan)
        assert ledger.one(url, "select to_regclass('one_each')") is None
        await here.connection.execute("update bottles set name = id::text")
        assert await apply(here, plan) == 1
        assert await apply(here, plan) == 0
    assert ledger.one(url, "select indisvalid from pg_index where indexrelid = 'one_each'::regclass") is True


async def test_a_second_one_is_refused_with_the_name_of_the_first(url, address, monkeypatch):
    monkeypatch.setattr(sessions, "LOCK_WAIT_S", 0.1)
    async with session(address):
        with pytest.raises(Conflict, match=r"milkrun/ledger/2 \(pid \d+\) migrates the database of ledger"):
            await expanded(address)
    assert await expanded(address) == 7


async def test_a_script_that_was_edited_meanwhile_is_refused(url, address):
    await expanded(address)
    async with session(address) as here:
        with pytest.raises(Conflict, match="is not what it was when its statement 1 was done"):
            await apply(here, steps(script(b"select 1", "expand.sql"), "expand"))


async def test_the_address_is_told_to_nobody(tmp_path):
    for url in ("postgresql://boss:hush@nowhere.invalid/farm", "postgresql://boss:hush@[/farm", "hush"):
        with pytest.raises(MilkrunError) as caught:
            async with session(Address(url)):
                pass
        told = f"{caught.value!r} {caught.value.__cause__!r} {Address(url)!r}"
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        assert not [word for word in ("hush", "boss", "nowhere", "farm") if word in told]


async def test_a_backfill_that_lost_its_server_goes_on_where_it_was(cluster, url, address):
    await expanded(address)
    plan = script(ledger.BACKFILL, "backfill.sql")

    def kill(progress):
        if progress.rows >= 2000:
            cluster.kill()

    with pytest.raises(DatabaseGone):
        async with session(address) as here:
            await backfill(here, plan, kill)
    cluster.start()
    seen = []
    async with session(address) as here:
        await backfill(here, plan, seen.append)
        assert await verify(here, script(ledger.VERIFY, "verify.sql")) == []
    assert seen[0].rows > 2000
    assert seen[-1].rows == 5000


async def test_a_backfill_waits_for_vacuum_while_too_many_rows_are_dead(url, address):
    await expanded(address)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter table bottles set (autovacuum_enabled = false)")
    settings = MigrationSettings(batch=1000, dead_rows_at_most=1000)
    told = asyncio.Queue()
    waits = 0
    async with session(address, settings=settings) as here, asyncio.TaskGroup() as tasks:

        async def flushed():
            """PostgreSQL tells its figures once a second, if nobody asks."""
            await here.connection.execute("select pg_stat_force_next_flush()")

        async def fills():
            await backfill(here, script(ledger.BACKFILL, "backfill.sql"), told.put_nowait, flushed)
            told.put_nowait(None)

        tasks.create_task(fills())
        before = 0
        while (progress := await told.get()) is not None:
            if progress.why_slow and progress.rows == before:
                assert progress.why_slow.startswith("dead rows ")
                waits += 1
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("vacuum bottles")
            before = progress.rows
    assert waits >= 1
    assert ledger.one(url, "select count(*) from bottles where goat is distinct from name") == 0
