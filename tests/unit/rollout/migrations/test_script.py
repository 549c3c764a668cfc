from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.rollout.migrations import lexer
from milkrun.rollout.migrations.script import Directive, Statement, columns, expressions, names, parse

PIECES = st.sampled_from([
    "select", "x", "1", ",", "=", "a.b", "x::int", "'a;b'", "'it''s;'", r"E'\';'", r"'\'", "$$;$$", "$q$ ; $$ $q$",
    '"a;""b"', "U&'d;'", "B'01'", "'one'\n'two;'", "'one' -- c\n  'two;'", "/* ; /* ' */ ; */", "-- ; ' $$\n", "(;)",
    "a$b$c", "é", "$1", ":from", "[1:2]",
])  # fmt: skip


def texts(script):
    return [each.text for each in script.statements]


@given(st.lists(st.lists(PIECES, min_size=1, max_size=8), max_size=6))
def test_a_script_comes_apart_where_it_was_put_together(parts):
    statements = [" ".join(["select", *part]) for part in parts]
    found = parse(";\n".join(statements).encode(), "x.sql")

    joined = ";\n".join(statements)
    assert len(found.statements) == len(statements)
    for statement, written in zip(found.statements, statements, strict=True):
        assert written.startswith(statement.text)
        assert joined.splitlines()[statement.line - 1].startswith("select")


@given(st.text())
def test_any_text_is_read_or_refused_with_its_line(text):
    try:
        found = list(lexer.tokens(text))
    except InputRefused as error:
        assert 1 <= error.line <= text.count("\n") + 1  # noqa: PT017 (either is right)
        return
    assert "".join(token.text for token in found) == "".join(text[token.start : token.end] for token in found)
    rest = text
    for token in reversed(found):
        rest = rest[: token.start] + rest[token.end :]
        assert token.line == text.count("\n", 0, token.start) + 1
    assert rest.strip(" \t\n\r\f\v") == ""


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("select 1;\n'abc", 2, "a string begins here"),
        ('select\n\n"abc', 3, "a quoted identifier begins"),
        ("/* /* */", 1, "a comment begins"),
        ("select $a$ $b$", 1, "a text begins here with $a$"),
        ("\\copy x", 1, "psql's own commands"),
        (r"select E'\'", 1, "a string begins"),
    ],
)
def test_what_does_not_end_is_refused_where_it_begins(text, line, reason):
    with pytest.raises(InputRefused, match=f"x.sql:{line}: ") as caught:
        parse(text.encode(), "x.sql")
    assert reason in caught.value.reason


def test_an_atomic_function_is_one_statement():
    body = (
        "create or replace function f() returns int begin atomic select case when a then 1 end; select 2; end"
    )
    assert texts(parse(f"{body}; select 3".encode(), "x.sql")) == [body, "select 3"]
    assert texts(parse(b"begin; select 1; end", "x.sql")) == ["begin", "select 1", "end"]


def test_a_directive_belongs_to_the_statement_below_it():
    found = parse(
        b"-- milkrun: backfill table=farm.bottles key=id\n-- why\nupdate b set x = y where id between :from and :upto;"
        b'\n-- milkrun: sync table=b old=name new=goat forward="upper(""name"")"\n',
        "x.sql",
    )

    statement, sync = found.items
    assert isinstance(statement, Statement)
    assert statement.directives == (Directive("backfill", {"table": "farm.bottles", "key": "id"}, 1),)
    assert (statement.line, names(statement)) == (3, ["from", "upto"])
    assert sync == Directive(
        "sync", {"table": "b", "old": "name", "new": "goat", "forward": 'upper("name")'}, 4
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "-- milkrun: backfil table=b key=id\nselect 1",
            r"unknown directive `backfil` \(did you mean `backfill`",
        ),
        ("-- milkrun: backfill table=b\nselect 1", "`backfill` needs `key="),
        ("-- milkrun: backfill table=b key=id key=x\nselect 1", "twice"),
        ("-- milkrun: backfill table=b key=id old=x\nselect 1", "no key `old`"),
        ('-- milkrun: sync table=b old="a b" new=c', "plain name"),
        ("-- milkrun: sync table=b;drop old=a new=c", "plain name"),
        ('-- milkrun: sync table=b old=a new=c forward="x', "cannot read"),
        ("-- milkrun: sync table=b old=a new=c,", "plain name"),
        ("-- milkrun: sync table=b old=a new=c,C", "each column once"),
        ("-- milkrun: sync table=b old=a new=b,a", "each column once"),
        (
            '-- milkrun: sync table=b old=a new=c,d backward="c"',
            r"x.sql:1: `forward` needs 2 expressions .* not 1",
        ),
        ('-- milkrun: sync table=b old=a new=c,d forward="f(a, 1), a"', "`backward` needs 1 .* not 2"),
        ('-- milkrun: sync table=b old=a new=c backward="c; drop"', "one expression for each"),
        ('\n-- milkrun: sync table=b old=a new=c backward="\'c"', r"x.sql:2: a string begins"),
        ("-- milkrun: allow rule=drop because=x", "no statement below"),
        ("select 1 -- milkrun: allow rule=drop because=x\n+ 1", "not in it"),
    ],
)
def test_a_directive_that_cannot_be_meant_is_refused(text, reason):
    with pytest.raises(InputRefused, match=reason):
        parse(text.encode(), "x.sql")


ATOMS = st.sampled_from([
    "a", "1", "'it''s, (one'", '"a,(b"', "$$ , ) $$", r"E'\',)'", "a || b", "x::numeric(4, 2)", "array[1, 2]",
])  # fmt: skip
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: f"f({', '.join(some)})"),
        inner.map(lambda one: f"({one})"),
        inner.map(lambda one: f"a[{one}]"),
    ),
    max_leaves=6,
)


@given(st.lists(EXPRESSIONS, min_size=1, max_size=4), st.sampled_from([",", " , ", ",\t"]))
def test_expressions_come_apart_at_the_commas_between_them(some, comma):
    assert expressions(comma.join(some), 1) == some


@given(st.text(alphabet="()[],;'\"$a -/*", max_size=12))
def test_each_expression_can_only_be_read_as_one(text):
    try:
        found = expressions(text, 1)
    except InputRefused:
        return
    assert ",".join(found).replace(" ", "") == text.replace(" ", "")
    for one in found:
        (statement,) = parse(f"select ({one}), 1".encode(), "x.sql").statements
        assert statement.text == f"select ({one}), 1"
        assert expressions(f"({one}), 1", 1) == [f"({one})", "1"]


def test_columns_are_named_with_commas_between():
    text = '-- milkrun: sync table=b old=label new=farmer,goat forward="f(label, 1), label" backward="g(farmer, goat)"'
    (sync,) = parse(text.encode(), "x.sql").syncs
    assert columns(sync.values["new"]) == ["farmer", "goat"]
    assert expressions(sync.values["forward"], 1) == ["f(label, 1)", "label"]
