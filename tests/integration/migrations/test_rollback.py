"""Each phase can be taken back under load, and each version's own queries pass on each schema that it may meet."""

from __future__ import annotations

import psycopg
import pytest

from milkrun.rollout.migrations import phases
from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.files import Scripts
from milkrun.rollout.migrations.script import Directive, parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.rollout.migrations.verify import verify
from milkrun.settings.migration import MigrationSettings

from . import ledger

pytestmark = pytest.mark.needs("postgres")

TEXTS = {
    "expand": ledger.EXPAND, "backfill": ledger.BACKFILL, "verify": ledger.VERIFY, "contract": ledger.CONTRACT,
    "undo": ledger.UNDO,
}  # fmt: skip
SCRIPTS = Scripts({name: parse(text, f"{name}.sql") for name, text in TEXTS.items()}, TEXTS)
SYNCS = [item for item in SCRIPTS.of("expand").items if isinstance(item, Directive)]
OLD, NEW = ("name", "1"), ("goat", "2")
REACHED = ["expand", "half of the backfill", "backfill", "verify", "contract"]


class Enough(Exception):
    """The backfill is half done."""


async def reach(here, until):
    """The phases up to this one are done."""

    def tell(progress):
        if until == "half of the backfill" and progress.rows >= 2500:
            raise Enough

    await phases.expand(here, SCRIPTS)
    if until == "expand":
        return
    try:
        await backfill(here, SCRIPTS.of("backfill"), tell)
    except Enough:
        return
    if until in ("verify", "contract"):
        assert await verify(here, SCRIPTS.of("verify")) == []
    if until == "contract":
        await apply(here, steps(SCRIPTS.of("contract"), "contract", ending=SYNCS))


def session(address):
    return opened(address, "ledger", "2", MigrationSettings(batch=500), lambda _: None)


@pytest.mark.parametrize("until", REACHED[:-1])
async def test_taken_back_under_load_then_done_again(url, address, until):
    before = ledger.one(url, "select sum(litres) from bottles")
    schema = shape(url)
    litres = 0
    async with ledger.elsewhere(url, OLD, OLD) as old, session(address) as here:
        await ledger.each_answered(old, 2)
        for _ in range(2):
            await reach(here, "expand")
            async with ledger.elsewhere(url, NEW) as new:
                await ledger.each_answered(new, 1, more=20)
                await reach(here, until)
                await ledger.each_answered(new, 1, more=20)
            # The new version has left, as a rollout sees to: what it used goes, under the old one's feet.
            assert new.errors == []
            litres += new.litres
            assert await phases.undo(here, SCRIPTS) > 0
            await ledger.each_answered(old, 2)
            assert await here.record.entries() == {}
            assert shape(url) == schema
        await reach(here, "verify")
        await ledger.each_answered(old, 2)
    print(f"\ntaken back after {until}: {old.told()}")
    assert old.errors == []
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select sum(litres), count(*) filter (where name is null or goat is distinct from name) from bottles"
        ).fetchone()
    assert row == (before + litres + old.litres, 0)


def shape(url):
    """Columns (without whether they may be NULL), indexes, constraints, triggers and our functions."""
    with psycopg.connect(url) as connection:
        return [
            sorted(connection.execute(query).fetchall())
            for query in (
                "select attname, atttypid from pg_attribute where attrelid = 'bottles'::regclass and not attisdropped",
                "select indexrelid::regclass::text from pg_index where indrelid = 'bottles'::regclass",
                "select conname from pg_constraint where conrelid = 'bottles'::regclass",
                "select tgname from pg_trigger where not tgisinternal",
                "select proname from pg_proc where pronamespace = to_regnamespace('milkrun')",
            )
        ]


def of_version(column):
    """The version's own tests: what it writes it finds again, by its own column."""

    def run(connection):
        def ask(query, *values):
            return connection.execute(query.format(column=column).encode(), values).fetchall()

        ((made,),) = ask("insert into bottles ({column}, litres) values (%s, %s) returning id", "heidi", 4)
        assert ask("select {column}, litres from bottles where id = %s", made) == [("heidi", 4)]
        assert ask("update bottles set {column} = %s where id = %s returning litres", "anna", made) == [(4,)]
        assert (made,) in ask("select id from bottles where {column} = %s order by id", "anna")
        assert ask("update bottles set litres = litres + 1 where id = %s returning {column}", made) == [
            ("anna",)
        ]
        assert ("anna", 5) in ask("select {column}, sum(litres)::int from bottles group by {column}")
        with pytest.raises(psycopg.errors.IntegrityError):
            ask("insert into bottles (id, {column}, litres) values (%s, 'twice', 1)", made)
        assert ask("delete from bottles where id = %s returning {column}", made) == [("anna",)]

    return run


@pytest.mark.parametrize("until", REACHED)
async def test_each_version_passes_its_own_tests_on_each_schema_that_it_meets(url, address, until):
    async with session(address) as here:
        await reach(here, until)
    with psycopg.connect(url, autocommit=True) as connection:
        of_version("goat")(connection)
        if until == "contract":
            with pytest.raises(psycopg.errors.UndefinedColumn):
                of_version("name")(connection)
        else:
            of_version("name")(connection)
            # What one wrote the other reads.
            connection.execute("insert into bottles (id, name, litres) values (-1, 'old', 1), (-2, 'x', 1)")
            connection.execute("update bottles set goat = 'new' where id = -2")
            rows = connection.execute("select name, goat from bottles where id < 0 order by id").fetchall()
            assert rows == [("new", "new"), ("old", "old")]
