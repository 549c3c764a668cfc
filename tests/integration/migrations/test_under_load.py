"""A whole migration under clients that never stop asking: no error, no row wrong, and how long the slowest one waited.

MILKRUN_SOAK=1 takes a table of 1,000,000 rows and eight clients in place of 20,000 and four. Times are printed (-s)
and not asserted: they are the machine's.
"""

from __future__ import annotations

import contextlib
import os
import time

import psycopg
import pytest

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import Address
from milkrun.rollout.migrations.script import Directive, parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.rollout.migrations.verify import verify
from milkrun.settings.migration import MigrationSettings

from . import ledger
from .cluster import bottles

pytestmark = pytest.mark.needs("postgres")

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
ROWS, EACH = (1_000_000, 4) if SOAK else (20_000, 2)
OLD, NEW = [("name", "1")] * EACH, [("goat", "2")] * EACH
SYNCS = [item for item in parse(ledger.EXPAND, "expand.sql").items if isinstance(item, Directive)]


async def phase(name, crowds, work):
    """What the work gave; how long it took and whom it held up is printed."""
    for crowd in crowds:
        await ledger.each_answered(crowd, EACH)
    began = time.monotonic()
    result = await work
    took = time.monotonic() - began
    for crowd in crowds:
        await ledger.each_answered(crowd, EACH)
    slowest = ", ".join(f"{crowd.slowest_ms:.0f} ms" for crowd in crowds)
    print(f"{name:10} {took:6.2f} s, slowest statement of each version so far: {slowest}")
    return result


@pytest.mark.timeout(900 if SOAK else 120)
async def test_a_rename_from_the_first_statement_to_the_last(cluster):
    url = cluster.database()
    bottles(url, ROWS)
    before = ledger.one(url, "select sum(litres) from bottles")
    print(f"\n{ROWS} rows, {EACH} clients of each version")
    async with contextlib.AsyncExitStack() as stack:
        new_stack = await stack.enter_async_context(contextlib.AsyncExitStack())
        here = await stack.enter_async_context(
            opened(Address(url), "ledger", "2", MigrationSettings(), lambda _: None)
        )
        async with ledger.elsewhere(url, *OLD, rows=ROWS) as old:
            expand = steps(parse(ledger.EXPAND, "expand.sql"), "expand")
            assert await phase("expand", [old], apply(here, expand)) == 7
            new = await new_stack.enter_async_context(ledger.elsewhere(url, *NEW, rows=ROWS))
            seen = []
            both = [old, new]
            await phase("backfill", both, backfill(here, parse(ledger.BACKFILL, "backfill.sql"), seen.append))
            assert await phase("verify", both, verify(here, parse(ledger.VERIFY, "verify.sql"))) == []
        print(f"rows looked at: {seen[-1].rows}, {seen[-1].rate:.0f} a second")
        contract = steps(parse(ledger.CONTRACT, "contract.sql"), "contract", ending=SYNCS)
        assert await phase("contract", [new], apply(here, contract)) == 3
        await new_stack.aclose()
    print(f"old: {old.told()}\nnew: {new.told()}")
    assert (old.errors, new.errors) == ([], [])
    assert seen[-1].rows >= ROWS
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select sum(litres), count(*) filter (where goat is null) from bottles"
        ).fetchone()
    assert row == (before + old.litres + new.litres, 0)
