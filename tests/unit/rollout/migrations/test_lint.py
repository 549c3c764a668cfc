from __future__ import annotations

import pytest

from milkrun.rollout.migrations.lint import lint
from milkrun.rollout.migrations.script import parse

CHECKED = (
    "alter table b add constraint c check (x is not null) not valid; alter table b validate constraint c"
)
BATCH = "-- milkrun: backfill table=b key=id\n"


def found(text, phase="expand"):
    return [(each.rule, each.line) for each in lint(parse(text.encode(), "m.sql"), phase)]


@pytest.mark.parametrize(
    ("rule", "phase", "text"),
    [
        ("transaction", "expand", "begin"),
        ("session", "contract", "set lock_timeout = 0"),
        ("copy", "expand", "do $$ begin end $$"),
        ("drop", "expand", "drop table b"),
        ("drop", "expand", "alter table b drop column x"),
        ("drop", "expand", "ALTER TABLE b ADD COLUMN y int, DROP x"),
        ("rename", "expand", "alter table b rename column x to y"),
        ("rename", "expand", "alter table b rename to c"),
        ("type-change", "expand", "alter table b alter column x type bigint"),
        ("type-change", "contract", "alter table b alter x set data type bigint using x::bigint"),
        ("rewrite", "expand", "alter table b set unlogged"),
        ("volatile-default", "expand", "alter table b add column x uuid default gen_random_uuid()"),
        ("generated", "expand", "alter table b add column x bigserial"),
        ("not-null", "expand", "alter table b add x int not null"),
        ("index", "expand", "create unique index i on b (x)"),
        ("index-name", "expand", "create index concurrently on b (x)"),
        ("drop-index", "contract", "drop index i"),
        ("constraint", "expand", "alter table b add constraint c check (x > 0)"),
        ("constraint", "expand", "alter table b add foreign key (x) references c (id)"),
        ("unique", "expand", "alter table b add constraint u unique (x)"),
        ("column-constraint", "expand", "alter table b add column x int references c (id)"),
        ("data", "expand", "update b set x = 1 where id = 3"),
        ("data", "contract", "with a as (select 1) delete from b"),
        ("set-not-null", "expand", "alter table b alter x set not null"),
        ("batches", "backfill", "update b set x = 1"),
        ("batches", "backfill", f"{BATCH}update b set x = 1 where id > :from"),
        ("batches", "backfill", f"{BATCH}update b set x = 1 where other between :from and :upto"),
        ("batches", "backfill", f"{BATCH}select 1 where id between :from and :upto"),
        ("batches", "expand", f"{BATCH}create table c (id int)"),
        ("reads", "verify", "delete from b returning 0"),
        ("reads", "verify", "with gone as (delete from b returning 1) select 0"),
        ("sync", "contract", "-- milkrun: sync table=b old=x new=y"),
    ],
)
def test_each_rule_refuses_what_it_is_for(rule, phase, text):
    assert rule in [name for name, _ in found(text, phase)]


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        ("expand", "alter table b add column goat text"),
        ("expand", "alter table b add column seven int not null default 7"),
        ("expand", "create table c (id bigserial primary key, x int not null)"),
        ("expand", "create index concurrently i on b (x)"),
        ("expand", "alter table b alter column x drop not null"),
        ("expand", "alter table b add constraint c check (x > 0) not valid; alter table b validate constraint c"),
        ("expand", "alter table b add constraint f foreign key (x) references c (id) not valid"),
        ("expand", "alter table b add constraint u unique using index i"),
        ("expand", "comment on table b is 'drop table b; update b set x = 1'"),
        ("expand", "create view v as select 1 -- drop table b"),
        ("backfill", f"{BATCH}update b set x = y where id between :from and :upto and x is null"),
        ("verify", "select count(*) from b where x is distinct from y"),
        ("contract", "alter table b drop column x"),
        ("undo", "alter table b drop column goat"),
        ("expand", f"{CHECKED}; alter table b alter column x set not null"),
    ],
)  # fmt: skip
def test_the_safe_ways_pass(phase, text):
    assert found(text, phase) == []


def test_a_finding_has_its_line_and_the_safe_way():
    (one,) = lint(parse(b"-- an index\n\ncreate index i\non b (x);", "m.sql"), "expand")
    assert one.text == (
        "m.sql:3: index: nobody writes to the table until it is built; CREATE INDEX CONCURRENTLY name ON ..."
    )


def test_somebodys_own_word_takes_one_rule_away_from_one_statement():
    allow = '-- milkrun: allow rule=index because="the table is new"\n'
    assert found(f"{allow}create index i on b (x); create index j on b (y)") == [("index", 2)]
    assert found(f"{allow}drop index i; drop table b") == [("drop", 2), ("drop-index", 2), ("drop", 2)]
