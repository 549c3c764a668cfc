"""The phases one after another, from a commit's files: what is refused, and what is left after each."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from milkrun.errors import Conflict, InputRefused
from milkrun.repository.reading import Repository
from milkrun.rollout.migrations import phases, rides
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.files import judged, read
from milkrun.rollout.migrations.session import opened
from milkrun.settings.migration import MigrationSettings

from . import ledger

pytestmark = pytest.mark.needs("postgres")

FILES = {
    "expand": ledger.EXPAND, "backfill": ledger.BACKFILL, "verify": ledger.VERIFY, "contract": ledger.CONTRACT,
    "undo": ledger.UNDO,
}  # fmt: skip


def commit(folder, files):
    home = folder / "migrations" / "ledger" / "2"
    home.mkdir(parents=True)
    for name, text in files.items():
        (home / f"{name}.sql").write_bytes(text)

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "a migration")
    return git("rev-parse", "HEAD")


async def scripts(folder, files=FILES):
    made = commit(folder, files)
    return await read(await Repository.open(folder), made, "ledger", "2")


def session(address):
    return opened(address, "ledger", "2", MigrationSettings(), lambda _: None)


async def contract(here, plan, *, old=0):
    await phases.contract(here, plan, service="ledger", new="2", old={"1": old})


async def columns(here):
    rows = await here.connection.execute(
        "select attname from pg_attribute where attrelid = 'bottles'::regclass and attnum > 0 and not attisdropped"
    )
    return {row[0] for row in await rows.fetchall()}


async def test_the_contract_comes_when_nobody_is_left(tmp_path, url, address):
    plan = await scripts(tmp_path)
    assert await judged(plan) == []
    async with session(address) as here:
        with pytest.raises(Conflict, match=r"statement 1 of expand.sql is not done"):
            await contract(here, plan)
        await phases.expand(here, plan)
        with pytest.raises(Conflict, match=r"statement 1 of backfill.sql is not done"):
            await contract(here, plan)
        await backfill(here, plan.of("backfill"), lambda _: None)
        async with ledger.clients(url, ("goat", "2")) as new:
            async with ledger.clients(url, ("name", "1")) as old:
                await ledger.answered(old, 10)
                await ledger.answered(new, 10)
                with pytest.raises(Conflict, match=r"1 sessions of 1 are in the database: ledger/1/1"):
                    await contract(here, plan)
            with pytest.raises(Conflict, match=r"1 instances of 1 are in the catalog"):
                await contract(here, plan, old=1)
            assert await columns(here) == {"id", "name", "litres", "goat"}
            await contract(here, plan)
            await contract(here, plan)  # again: there is nothing left to do
            await ledger.answered(new, 10)
        assert (old.errors, new.errors) == ([], [])
        assert await columns(here) == {"id", "litres", "goat"}
        with pytest.raises(Conflict, match=r"the contract has begun"):
            await phases.undo(here, plan)


async def test_by_hand_an_early_contract_breaks_the_old_version(url, address):
    async with ledger.clients(url, ("name", "1")) as old, session(address) as here:
        await ledger.answered(old, 10)
        await here.connection.execute("alter table bottles drop column name")
        await ledger.answered(old, 10)
    assert "42703" in old.errors


async def test_an_undo_under_load_leaves_nothing_and_can_begin_anew(tmp_path, url, address):
    plan = await scripts(tmp_path)
    async with ledger.clients(url, ("name", "1")) as old, session(address) as here:
        for _ in range(2):
            await phases.expand(here, plan)
            await backfill(here, plan.of("backfill"), lambda _: None)
            await ledger.answered(old, 10)
            await phases.undo(here, plan)
            assert await columns(here) == {"id", "name", "litres"}
            assert await here.record.entries() == {}
    assert old.errors == []
    assert ledger.one(url, "select count(*) from pg_trigger where not tgisinternal") == 0


async def test_rules_and_squawk_judge_each_script(tmp_path):
    bad = {"expand": b"alter table b add x char(3);\ndrop table c;", "contract": b"drop index i;"}
    found = [
        (each.rule, each.file.rpartition("/")[2], each.line)
        for each in await judged(await scripts(tmp_path, bad))
    ]
    assert ("drop", "expand.sql", 2) in found
    assert ("ban-char-field", "expand.sql", 1) in found
    assert ("drop-index", "contract.sql", 1) in found


async def test_a_backfill_that_nobody_checks_is_refused(tmp_path):
    (one,) = await judged(await scripts(tmp_path, {"backfill": ledger.BACKFILL}))
    assert (one.rule, one.line) == ("verify", 3)


async def test_a_file_of_no_phase_is_refused(tmp_path):
    with pytest.raises(InputRefused, match=r"no phase is called `expnad.sql` \(did you mean `expand.sql`"):
        await scripts(tmp_path, {"expnad": b"select 1"})


async def test_who_is_taken_back_takes_away_only_what_it_brought(address, tmp_path):
    own = await scripts(tmp_path)

    def rollout(name, strategy="canary"):
        return SimpleNamespace(id=name, strategy=strategy)

    def of(name):
        return opened(address, "ledger", "2", MigrationSettings(), lambda _: None, rollout=name)

    async with of("first") as here:
        await phases.expand(here, own)
    async with of("second") as here:
        assert await phases.expand(here, own) == 0
        left = await rides._undo(here, own, rollout("second"))
        assert (left.good, left.said) == (True, "first brought it and not this rollout: it stays")
        assert "goat" in await columns(here)
    async with of("first") as here:
        assert (await rides._undo(here, own, rollout("first"))).good
        assert "goat" not in await columns(here)
        await phases.expand(here, own)
    async with of("third") as here:
        assert (await rides._undo(here, own, rollout("third", "undo"))).good
        assert "goat" not in await columns(here)
