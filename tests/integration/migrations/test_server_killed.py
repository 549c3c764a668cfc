"""PostgreSQL itself is killed at each statement: started again, it is followed by a call that goes on behind it."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import DatabaseGone
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.settings.migration import MigrationSettings

from . import ledger

pytestmark = pytest.mark.needs("postgres")

EXPAND = ledger.PLANS["expand"]


def session(address, say=lambda _: None, settings=MigrationSettings(batch=500)):  # noqa: B008 - it is frozen
    return opened(address, "ledger", "2", settings, say)


def dying(cluster, here, number, when):
    """The session's server is killed before statement `number`, or when it is to be recorded as done."""
    put = here.record.put

    def say(text):
        if when == "before" and f" {number}/" in text:
            cluster.kill()

    async def dies(step, entry):
        if when == "unrecorded" and step.number == number and (entry.state == "done" or entry.cursor):
            cluster.kill()
        await put(step, entry)

    here.say, here.record.put = say, dies


@pytest.mark.parametrize("when", ["before", "unrecorded"])
@pytest.mark.parametrize("phase", ledger.PLANS)
async def test_killed_at_each_statement_the_next_call_goes_on_behind_the_last_one(
    cluster, url, address, phase, when
):
    plan = ledger.PLANS[phase]
    if phase != "expand":
        async with session(address) as here:
            await apply(here, EXPAND)
    for step in plan:
        async with session(address) as here:
            dying(cluster, here, step.number, when)
            with pytest.raises(DatabaseGone):
                await apply(here, plan)
        cluster.start()
        with psycopg.connect(url) as connection:
            done = connection.execute(
                "select step from milkrun.migrations where phase = %s and state = 'done' order by step",
                (phase,),
            ).fetchall()
        assert [number for (number,) in done] == list(range(1, step.number))
    async with session(address) as here:
        assert await apply(here, plan) == 1
    check(url, phase)


def check(url, phase):
    with psycopg.connect(url) as connection:
        columns = {
            name for (name,) in connection.execute(
                "select attname from pg_attribute where attrelid = 'bottles'::regclass and attnum > 0"
                " and not attisdropped"
            )
        }  # fmt: skip
        indexes = connection.execute(
            "select indexrelid::regclass::text, indisvalid from pg_index where indrelid = 'bottles'::regclass"
        ).fetchall()
        triggers = connection.execute("select count(*) from pg_trigger where not tgisinternal").fetchone()[0]
    assert (
        columns
        == {"id", "litres"} | {"expand": {"name", "goat"}, "contract": {"goat"}, "undo": {"name"}}[phase]
    )
    more = [] if phase == "undo" else [("bottles_goat", True)]
    assert sorted(indexes) == [*more, ("bottles_pkey", True)]
    assert triggers == (phase == "expand")


async def test_killed_while_an_index_is_built_it_is_built_again(cluster, url, address):
    """Another's open transaction keeps the build waiting, so that the kill finds it half done."""
    said = []
    plan = steps(parse(b"create index concurrently half on bottles (name)", "e.sql"), "expand")
    with contextlib.closing(psycopg.connect(url)) as writer:
        writer.execute("update bottles set litres = 1 where id = 1")
        async with asyncio.TaskGroup() as tasks, session(address) as here:
            tasks.create_task(killed_when(cluster, here.watch, "select 1 from pg_stat_progress_create_index"))
            with pytest.raises(DatabaseGone):
                await apply(here, plan)
    cluster.start()
    assert ledger.one(url, "select indisvalid from pg_index where indexrelid = 'half'::regclass") is False
    async with session(address, said.append) as here:
        assert await apply(here, plan) == 1
    assert "the index half was left half built: dropped, to build it again" in said
    assert ledger.one(url, "select indisvalid from pg_index where indexrelid = 'half'::regclass") is True


async def killed_when(cluster, connection, query):
    while not await (await connection.execute(query)).fetchone():
        await asyncio.sleep(0.01)
    cluster.kill()


async def test_killed_in_a_batch_each_row_is_changed_once(cluster, url, address):
    again = b"-- milkrun: backfill table=bottles key=id\n"
    again += b"update bottles set litres = -litres where id between :from and :upto"
    plan = parse(again, "backfill.sql")
    seen = []
    for _ in range(3):
        async with session(address) as here:

            def tell(progress, at=here):
                seen.append(progress.rows)
                dying(cluster, at, 1, "unrecorded")

            with pytest.raises(DatabaseGone):
                await backfill(here, plan, tell)
        cluster.start()
    async with session(address) as here:
        await backfill(here, plan, lambda now: seen.append(now.rows))
    # Each call had one batch committed, and the next one went on behind it.
    assert seen[:3] == [500, 1000, 1500]
    assert max(seen) == 5000
    assert ledger.one(url, "select count(*) from bottles where litres >= 0") == 0
