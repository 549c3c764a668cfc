"""An engine that is killed at any statement is followed by one that goes on behind it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.settings.migration import MigrationSettings

from . import ledger

pytestmark = pytest.mark.needs("postgres")

PROGRAM = Path(__file__).with_name("killed.py")


def session(address):
    return opened(address, "ledger", "2", MigrationSettings(), lambda _: None)


def killed(*arguments: object) -> None:
    """What killed.py does; it has been killed when this returns."""
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)], check=False, timeout=60
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "unrecorded"])
@pytest.mark.parametrize("phase", ledger.PLANS)
async def test_killed_at_each_statement_it_goes_on_behind_the_last_one(url, address, phase, when):
    plan = ledger.PLANS[phase]
    if phase != "expand":
        async with session(address) as here:
            await apply(here, ledger.PLANS["expand"])
    for step in plan:
        killed(url, phase, step.number, when)
        with psycopg.connect(url) as connection:
            asked = "select step, state from milkrun.migrations where phase = %s order by step"
            rows = connection.execute(asked, (phase,)).fetchall()
        # What was done before stays done; of this one at most the intent is known.
        assert [number for number, state in rows if state == "done"] == list(range(1, step.number))
    async with session(address) as here:
        assert await apply(here, plan) == 1
    if phase == "expand":
        valid = "select indisvalid from pg_index where indexrelid = 'bottles_goat'::regclass"
        assert ledger.one(url, valid) is True
        assert (
            ledger.one(url, "select convalidated from pg_constraint where conname = 'bottles_litres'") is True
        )
    columns = "select string_agg(attname, ' ' order by attnum) from pg_attribute"
    columns += " where attrelid = 'bottles'::regclass and attnum > 0 and not attisdropped"
    left = {"expand": "id name litres goat", "contract": "id litres goat", "undo": "id name litres"}
    assert ledger.one(url, columns) == left[phase]


async def test_killed_in_each_batch_no_row_is_changed_twice(url, address, tmp_path):
    script = tmp_path / "backfill.sql"
    script.write_bytes(
        b"-- milkrun: backfill table=bottles key=id\n"
        b"update bottles set litres = -litres where id between :from and :upto"
    )
    before = ledger.one(url, "select sum(litres) from bottles")
    for number in (1, 2, 1, 3):
        killed(url, "backfill", number, "unrecorded", script)
    async with session(address) as here:
        await backfill(here, parse(script.read_bytes(), "backfill.sql"), lambda _: None)
    assert ledger.one(url, "select sum(litres) from bottles") == -before
    assert ledger.one(url, "select count(*) from bottles where litres > 0") == 0


async def test_killed_while_an_index_waits_for_somebody_the_next_one_does_not_wait_for_the_dead(url, address):
    """The server's part of it would go on waiting, with the service's lock, if it did not look for its client."""
    plan = ledger.PLANS["expand"]
    with contextlib.closing(psycopg.connect(url)) as batch, psycopg.connect(url, autocommit=True) as look:
        # An index waits for each older snapshot; the statements before it do not mind one.
        batch.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        batch.execute("select 1")
        process = subprocess.Popen([sys.executable, PROGRAM, url, "expand", "0", "never"])
        try:
            while not look.execute(
                "select 1 from pg_stat_progress_create_index where phase like 'waiting%'"
            ).fetchone():
                assert process.poll() is None
                await asyncio.sleep(0.01)
        finally:
            process.kill()
            process.wait(30)
        async with session(address) as here:
            left = await here.record.left(plan)
            batch.rollback()
            assert await apply(here, plan) == len(left)
    assert next(step.number for step, _ in left) == 5
    assert (
        ledger.one(url, "select indisvalid from pg_index where indexrelid = 'bottles_goat'::regclass") is True
    )
