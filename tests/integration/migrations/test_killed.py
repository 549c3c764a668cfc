"""An engine that is killed at any statement is followed by one that goes on behind it."""

from __future__ import annotations

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
