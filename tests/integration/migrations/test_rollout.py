"""Rollouts that migrate, in a real farm on a real PostgreSQL under clients who write all the time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from ledger_farm import SERVICE, LedgerFarm, at_step, customers, held_up

from milkrun.up.record import load as record

from .cluster import Cluster

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(180)]

CONFLICT, DEGRADED, REFUSED = 4, 7, 8
BEFORE = {"id", "ticket", "label", "amount"}
WHILE = BEFORE | {"farmer", "goat"}
AFTER = WHILE - {"label"}
ROWS = 3000


@pytest.fixture
async def farm(cluster: Cluster, tmp_path: Path) -> AsyncIterator[LedgerFarm]:
    made = await asyncio.to_thread(LedgerFarm, tmp_path / "farm", cluster.database())
    made.fill(ROWS)
    try:
        await asyncio.to_thread(made.up)
        yield made
    finally:
        await asyncio.to_thread(made.end)


async def says(farm: LedgerFarm, *arguments: str, status: int = 0) -> str:
    return await asyncio.to_thread(farm.says, *arguments, status=status)


async def shows(farm: LedgerFarm, *arguments: str) -> dict:
    return await asyncio.to_thread(farm.shows, *arguments)


async def begun(farm: LedgerFarm, version: str, *options: str) -> str:
    return await asyncio.to_thread(farm.begun, version, *options)


@pytest.fixture
def nightly(farm: LedgerFarm) -> Iterator[psycopg.Connection]:
    """A session that has the table in its transaction, and does not end it; and after that a row in the middle."""
    with farm.halfway(ROWS // 2) as batch:
        batch.set_autocommit(False)
        batch.execute("SELECT count(*) FROM bottles")
        yield batch


async def test_forward_with_the_engine_killed_on_the_way_then_the_contract_and_no_way_back(farm, nightly):
    """kill -9 in the expansion, in the backfill, after it and in the contract: the next engine goes on."""

    async def killed() -> None:
        known = record(farm.folder)
        assert known
        os.kill(known.parts["rollouts"].identity.pid, signal.SIGKILL)

    count, litres = farm.litres("amount")
    async with customers(farm):
        rollout = await begun(farm, "2.0")
        await farm.at(held_up("expand"))
        await killed()
        nightly.rollback()
        await farm.at(held_up("backfill"))
        await killed()
        nightly.execute("SELECT pg_advisory_unlock(42)")
        nightly.commit()
        await farm.at(at_step("pause"))
        await killed()
        await says(farm, "rollout", "resume", "ledger")
        receipt = await farm.ended(rollout)
        assert (receipt.outcome, receipt.reason) == ("done", "")
        assert farm.columns() == WHILE
        assert [line.partition(" ")[0] for line in receipt.migrated] == [
            "expand",
            "backfill",
            "verify",
            "verify",
        ]

        asked = await shows(farm, "migrate", "contract", "ledger", "--no-wait")
        await killed()
        receipt = await farm.ended(asked["rollout"])
        assert receipt.outcome == "done"
        assert farm.columns() == AFTER
    now, _ = farm.litres("amount")
    assert now > count
    with psycopg.connect(farm.database) as connection:
        filled = connection.execute(
            "SELECT sum(amount) FROM bottles WHERE id <= %s AND farmer = 'anna'", (count,)
        )
        assert filled.fetchone() == (litres,)
    assert f"Milkrun-Rollout: {asked['rollout']}" in farm.git("log", "-1", "--format=%B")
    assert "Milkrun-Migrated: contract the database for 2.0" in farm.git("log", "-1", "--format=%B")

    head = farm.git("rev-parse", "HEAD")
    for arguments in (("rollout", "undo", "ledger"), ("deploy", "ledger", "1.0")):
        assert "the contract of 2.0 took away what it needs" in await says(farm, *arguments, status=CONFLICT)
    assert farm.git("rev-parse", "HEAD") == head
    status = await shows(farm, "migrate", "status", "ledger")
    assert (status["unsuited"], status["contract"]) == ({"1.0": "2.0"}, None)


@pytest.mark.parametrize("moment", ["expand", "backfill", "pause"])
async def test_taken_back_in_each_phase_everything_is_as_it_was(farm: LedgerFarm, nightly, moment: str):
    before = farm.git("show", "HEAD:deploy/ledger.json")
    async with customers(farm):
        rollout = await begun(farm, "2.0")
        await farm.at(held_up("expand"))  # it says who is in its way
        if moment != "expand":
            nightly.rollback()
            await farm.at(held_up("backfill"))
        if moment == "pause":
            nightly.execute("SELECT pg_advisory_unlock(42)")
            nightly.commit()
            await farm.at(at_step("pause"))
        await says(farm, "rollout", "abort", "ledger", "--reason", "second thoughts")
        nightly.rollback()
        receipt = await farm.ended(rollout)
        assert receipt.outcome == "taken-back"
        assert "second thoughts" in receipt.reason
    assert farm.columns() == BEFORE
    assert farm.git("show", "HEAD:deploy/ledger.json") == before
    status = await shows(farm, "migrate", "status", "ledger")
    assert status["phases"] == []


async def test_a_backfill_is_paused_and_goes_on_where_it_was_and_an_undo_takes_the_columns_away(
    farm: LedgerFarm,
):
    def backfills() -> int:
        with psycopg.connect(farm.database) as connection:
            asked = "SELECT rows FROM milkrun.migrations WHERE phase = 'backfill'"
            found = connection.execute(asked).fetchone()
            return found[0] if found else 0

    def migrates() -> bool:
        with psycopg.connect(farm.database) as connection:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'milkrun/%'"
            return connection.execute(asked).fetchone() != (0,)

    async with customers(farm):
        with farm.halfway(ROWS // 2):
            rollout = await begun(farm, "2.0")
            await farm.at(held_up("backfill"))
            await says(farm, "rollout", "pause", "ledger")
            while migrates():
                await asyncio.sleep(0.02)
            assert 0 < backfills() < ROWS
        await says(farm, "rollout", "resume", "ledger")
        await farm.at(at_step("pause"))
        assert backfills() >= ROWS
        await says(farm, "rollout", "resume", "ledger")
        receipt = await farm.ended(rollout)
        assert receipt.outcome == "done"
        told = next(line for line in receipt.migrated if line.startswith("backfill"))
        assert told == f"backfill the database for 2.0: {backfills():,} rows"

        assert "ledger goes back to 1.0" in await says(farm, "rollout", "undo", "ledger")
        assert farm.columns() == BEFORE
    refused = await says(farm, "rollout", "undo", "ledger", status=CONFLICT)
    assert "that is no undo" in refused
    assert "milkrun deploy ledger 2.0" in refused


async def test_the_contract_waits_for_the_last_session_of_the_old_version(farm: LedgerFarm):
    rollout = await begun(farm, "2.0")
    await farm.at(at_step("pause"))
    assert "no rollout of 2.0 is known that was done" in await says(
        farm, "migrate", "contract", "ledger", "2.0", status=CONFLICT
    )
    await says(farm, "rollout", "resume", "ledger")
    assert (await farm.ended(rollout)).outcome == "done"
    with psycopg.connect(farm.database, application_name="ledger/1.0/forgotten"):
        waits = "sessions of 1.0 are in the database: ledger/1.0/forgotten"
        assert waits in await says(farm, "migrate", "status", "ledger")
        asked = await shows(farm, "migrate", "contract", "ledger", "--no-wait")
        await farm.at(lambda seen: any(waits in wait for wait in seen.waits_for))
        assert farm.columns() == WHILE
    assert (await farm.ended(asked["rollout"])).outcome == "done"
    assert farm.columns() == AFTER


async def test_a_server_that_is_away_is_waited_for_and_one_that_stays_away_ends_it(
    cluster: Cluster, farm: LedgerFarm
):
    with farm.halfway(ROWS // 2):
        rollout = await begun(farm, "2.0")
        await farm.at(held_up("backfill"))
        cluster.kill()
    await farm.at(lambda seen: any("database" in wait and "connection" in wait for wait in seen.waits_for))
    cluster.start()
    await farm.at(at_step("pause"))
    await says(farm, "rollout", "abort", "ledger")
    assert (await farm.ended(rollout)).outcome == "taken-back"
    assert farm.columns() == BEFORE

    (farm.path / "services" / "ledger.toml").write_text(
        SERVICE.replace("lock_budget_s = 60.0", "lock_budget_s = 3.0")
    )
    farm.commit("Less patience")
    with farm.halfway(ROWS // 2):
        rollout = await begun(farm, "2.0")
        await farm.at(held_up("backfill"))
        cluster.kill()
    try:
        seen = await farm.at(lambda seen: seen.phase.value == "needs-person")
        assert "connection" in seen.reason
    finally:
        cluster.start()
    await says(farm, "rollout", "retry", "ledger")
    assert (await farm.ended(rollout)).outcome == "taken-back"
    assert farm.columns() == BEFORE


async def test_what_is_not_safe_or_not_known_is_refused_before_anything_is_done(farm: LedgerFarm):
    scripts = farm.path / "migrations" / "ledger" / "2.0"
    expand = (scripts / "expand.sql").read_text()
    head = farm.git("rev-parse", "HEAD")
    assert "0.9/" in await says(farm, "migrate", "plan", "ledger", "0.9", status=3)
    (scripts / "expand.sql").write_text("ALTER TABLE bottles RENAME COLUMN label TO goat;\n")
    farm.commit("Somebody is in a hurry")
    for arguments in (
        ("migrate", "plan", "ledger", "2.0"),
        ("rollout", "plan", "ledger", "2.0"),
        ("deploy", "ledger", "2.0"),
    ):
        said = await says(farm, *arguments, status=REFUSED)
        assert "migrations/ledger/2.0/expand.sql:1: rename" in said, said
    (scripts / "expand.sql").write_text(expand)
    (scripts / "expnd.sql").write_text(expand)
    farm.git("add", "--all")
    farm.commit("A slip")
    assert "did you mean" in await says(farm, "deploy", "ledger", "2.0", status=REFUSED)
    farm.git("rm", "--quiet", "--force", "migrations/ledger/2.0/expnd.sql")
    (farm.path / "services" / "ledger.toml").write_text(
        SERVICE.replace('url_file = "secrets/database"\n', "")
    )
    farm.commit("No database")
    assert "names no database" in await says(farm, "deploy", "ledger", "2.0", status=REFUSED)
    (farm.path / "services" / "ledger.toml").write_text(
        SERVICE.replace("secrets/database", "secrets/gone", 2)
    )
    farm.commit("Nowhere")
    said = await says(farm, "deploy", "ledger", "2.0", status=CONFLICT)
    assert "cannot read the file secrets/gone" in said
    (farm.path / "secrets" / "gone").write_text(farm.database)
    said = await says(farm, "deploy", "ledger", "2.0", status=CONFLICT)
    assert "others may read it (mode 0644)" in said
    assert farm.git("diff", head, "HEAD", "--", "deploy") == ""
    assert farm.columns() == BEFORE
    url = farm.database
    log = "".join(path.read_text(errors="replace") for path in (farm.path / ".milkrun").rglob("*.log"))
    assert url not in log
    assert "postgresql://" not in log
