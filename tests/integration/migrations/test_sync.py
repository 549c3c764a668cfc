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


SPLIT = Directive(
    "sync",
    {
        "table": "bottles", "old": "name", "new": "farmer,goat",
        "forward": "split_part(name, '/', 1), split_part(name, '/', 2)", "backward": "farmer || '/' || goat",
    },
    1,
)  # fmt: skip
MERGE = Directive(
    "sync",
    {
        "table": "bottles", "old": "farmer,goat", "new": "name",
        "forward": SPLIT.values["backward"], "backward": SPLIT.values["forward"],
    },
    1,
)  # fmt: skip


def label(farm, query):
    return farm.execute(f"{query} returning name, farmer, goat".encode()).fetchone()


@pytest.mark.parametrize("directive", [SPLIT, MERGE])
def test_one_column_and_two_follow_each_other(farm, directive):
    farm.execute("alter table bottles add farmer text")
    installed(farm, directive)
    heidi = ("anna/heidi", "anna", "heidi")
    assert label(farm, "insert into bottles (name, litres) values ('anna/heidi', 1)") == heidi
    assert label(farm, "insert into bottles (farmer, goat, litres) values ('anna', 'heidi', 1)") == heidi
    last = "where id = (select max(id) from bottles)"
    assert label(farm, f"update bottles set goat = 'liesl' {last}") == ("anna/liesl", "anna", "liesl")
    assert label(farm, f"update bottles set farmer = 'resi' {last}") == ("resi/liesl", "resi", "liesl")
    assert label(farm, f"update bottles set name = 'resi/heidi' {last}") == ("resi/heidi", "resi", "heidi")
    assert label(farm, f"update bottles set farmer = 'anna', goat = 'heidi' {last}") == heidi
    assert label(farm, f"update bottles set farmer = null, goat = null {last}") == (None, None, None)
    assert label(farm, f"update bottles set name = 'anna/heidi' {last}") == heidi
    assert label(farm, f"update bottles set litres = 2 {last}") == heidi


def test_one_of_two_set_before_the_backfill_came_by_leaves_the_other_as_it_was(farm):
    farm.execute("alter table bottles add farmer text")
    farm.execute("update bottles set name = 'anna/heidi'")
    installed(farm, SPLIT)
    assert label(farm, "update bottles set goat = 'liesl' where id = 1") == ("anna/liesl", "anna", "liesl")
    # A backfill by halves, too.
    assert label(farm, "update bottles set farmer = split_part(name, '/', 1) where id = 2")[1:] == (
        "anna",
        "heidi",
    )
    assert label(farm, "update bottles set farmer = 'resi', goat = 'resl' where id = 3")[0] == "resi/resl"


def test_what_can_not_be_put_together_again_stays_as_it_was_in_a_backfill(farm):
    farm.execute("alter table bottles add farmer text")
    farm.execute("update bottles set name = 'anna/heidi/of the hill'")
    installed(farm, SPLIT)
    for one in ("farmer = split_part(name, '/', 1)", "goat = split_part(name, '/', 2)"):
        found = label(farm, f"update bottles set {one} where id = 1")
        assert found == ("anna/heidi/of the hill", "anna", "heidi")


def test_no_value_is_made_from_one_that_was_set_before_it(farm):
    farm.execute("alter table bottles add farmer text, add first text")
    forward = {"forward": "coalesce(farmer, goat), coalesce(first, name)", "backward": "farmer, first"}
    pairs = {"table": "bottles", "old": "name,goat", "new": "first,farmer"}
    installed(farm, Directive("sync", pairs | forward, 1))
    query = "insert into bottles (name, goat, litres) values ('a', 'b', 1) returning first, farmer"
    assert farm.execute(query).fetchone() == ("b", "a")


def test_after_its_end_nothing_of_it_is_left(farm):
    installed(farm, pair())
    for _ in range(2):
        for text in sync.drop(pair()):
            farm.execute(text.encode())
    assert row(farm, "insert into bottles (name, litres) values ('a', 1)") == ("a", None)
    assert farm.execute("select count(*) from pg_proc where proname like 'sync\\_%'").fetchone() == (0,)


@pytest.mark.parametrize(
    "text", ["1; drop table bottles", "a) (b", "(a", "", "a -- b", ")(", "(a]", "a,", "[a"]
)
def test_an_expression_is_one_expression(text):
    with pytest.raises(InputRefused, match="one expression"):
        sync.create(pair(forward=text))
