"""The trigger of two columns, row by row, as PostgreSQL runs it."""

from __future__ import annotations

import psycopg
import pytest

from milkrun.errors import InputRefused
from milkrun.rollout.migrations import sync
from milkrun.rollout.migrations.script import Directive

pytestmark = pytest.mark.needs("postgres")


def pair(**more):
    return Directive("sync", {"table": "bottles", "old": "name", "new": "goat", **more}, 1)


@pytest.fixture
def farm(url):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create schema milkrun")
        connection.execute("alter table bottles add goat text, alter name drop not null")
        yield connection


def row(farm, query):
    return farm.execute(f"{query} returning name, goat".encode()).fetchone()


def installed(farm, directive):
    for _ in range(2):  # each statement can be repeated
        for text in sync.create(directive):
            farm.execute(text.encode())


def test_whichever_side_is_written_the_other_follows(farm):
    installed(farm, pair())
    assert row(farm, "insert into bottles (name, litres) values ('a', 1)") == ("a", "a")
    assert row(farm, "insert into bottles (goat, litres) values ('b', 1)") == ("b", "b")
    assert row(farm, "update bottles set name = 'c' where id = 1") == ("c", "c")
    assert row(farm, "update bottles set goat = 'd' where id = 1") == ("d", "d")
    assert row(farm, "update bottles set goat = null where id = 1") == (None, None)
    assert row(farm, "update bottles set name = 'e', goat = 'e' where id = 1") == ("e", "e")
    assert row(farm, "update bottles set litres = 3 where id = 2") == ("goat2", None)


def test_a_backfill_leaves_the_old_column_as_it_was(farm):
    installed(farm, pair(forward="upper(name)", backward="lower(goat)"))
    farm.execute("update bottles set name = 'MiXed' where id = 1")
    farm.execute("update bottles set goat = null where id = 1")  # as a row of before the trigger
    farm.execute("alter table bottles disable trigger user")
    farm.execute("update bottles set name = 'MiXed', goat = null where id = 1")
    farm.execute("alter table bottles enable trigger user")
    assert row(farm, "update bottles set goat = upper(name) where id = 1") == ("MiXed", "MIXED")
    assert row(farm, "update bottles set goat = 'OTHER' where id = 1") == ("other", "OTHER")


def test_after_its_end_nothing_of_it_is_left(farm):
    installed(farm, pair())
    for _ in range(2):
        for text in sync.drop(pair()):
            farm.execute(text.encode())
    assert row(farm, "insert into bottles (name, litres) values ('a', 1)") == ("a", None)
    assert farm.execute("select count(*) from pg_proc where proname like 'sync\\_%'").fetchone() == (0,)


@pytest.mark.parametrize("text", ["1; drop table bottles", "a) (b", "(a", "", "a -- b", ")("])
def test_an_expression_is_one_expression(text):
    with pytest.raises(InputRefused, match="one expression"):
        sync.create(pair(forward=text))
