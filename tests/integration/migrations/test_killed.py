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
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.settings.migration import MigrationSettings

from . import ledger

pytestmark = pytest.mark.needs("postgres")


@pytest.mark.parametrize("when", ["before", "unrecorded"])
async def test_killed_at_each_statement_it_goes_on_behind_the_last_one(url, address, when):
    plan = steps(parse(ledger.EXPAND, "expand.sql"), "expand")
    for step in plan:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("killed.py"), url, str(step.number), when],
            check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        with psycopg.connect(url) as connection:
            rows = connection.execute("select step, state from milkrun.migrations order by step").fetchall()
        # What was done before stays done; of this one at most the intent is known.
        assert [number for number, state in rows if state == "done"] == list(range(1, step.number))
    async with opened(address, "ledger", "2", MigrationSettings(), lambda _: None) as here:
        assert await apply(here, plan) == 1
    assert (
        ledger.one(url, "select indisvalid from pg_index where indexrelid = 'bottles_goat'::regclass") is True
    )
    assert ledger.one(url, "select convalidated from pg_constraint where conname = 'bottles_litres'") is True


async def test_killed_while_an_index_waits_for_somebody_the_next_one_does_not_wait_for_the_dead(url, address):
    """The server's part of it would go on waiting, with the service's lock, if it did not look for its client."""
    plan = steps(parse(ledger.EXPAND, "expand.sql"), "expand")
    with contextlib.closing(psycopg.connect(url)) as batch, psycopg.connect(url, autocommit=True) as look:
        # An index waits for each older snapshot; the statements before it do not mind one.
        batch.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        batch.execute("select 1")
        process = subprocess.Popen([sys.executable, Path(__file__).with_name("killed.py"), url, "0", "never"])
        try:
            while not look.execute(
                "select 1 from pg_stat_progress_create_index where phase like 'waiting%'"
            ).fetchone():
                assert process.poll() is None
                await asyncio.sleep(0.01)
        finally:
            process.kill()
            process.wait(30)
        async with opened(address, "ledger", "2", MigrationSettings(), lambda _: None) as here:
            left = await here.record.left(plan)
            batch.rollback()
            assert await apply(here, plan) == len(left)
    assert next(step.number for step, _ in left) == 5
    assert (
        ledger.one(url, "select indisvalid from pg_index where indexrelid = 'bottles_goat'::regclass") is True
    )
