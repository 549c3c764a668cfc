from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.settings import phases

FILE = "migrations/ledger/2.0/phases.toml"


def load(text):
    return phases.load(text.encode(), FILE)


def test_a_phase_is_a_command_or_revisions():
    found = load(
        'alembic = "db/alembic.ini"\n[expand]\nrevisions = "base:1a"\n\n[backfill]\ncommand = ["./fill", "{version}"]\n'
        "timeout_s = 60"
    )
    assert found.settings.alembic == "db/alembic.ini"
    assert [*found.settings.named] == ["expand", "backfill"]
    assert found.settings.expand.revisions == "base:1a"
    assert found.settings.backfill.command == ["./fill", "{version}"]
    assert found.settings.backfill.timeout_s == 60
    assert found.lines == {"expand": 2, "backfill": 5}


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ('[expnad]\ncommand = ["x"]', r"expnad: unknown key \(did you mean `expand`\?\)", 1),
        ('[expand]\ncommnad = ["x"]', r"expand.commnad: unknown key \(did you mean `command`\?\)", 2),
        (
            '[expand]\ncommand = ["x"]\nrevisions = "a:b"',
            "expand: has to have `command` or `revisions`, one",
            1,
        ),
        ("[expand]\ntimeout_s = 5", "expand: has to have `command` or `revisions`, one of both", 1),
        ("[expand]\ncommand = []\ntimeout_s = 5", "expand: has to have `command` or `revisions`", 1),
        ('[expand]\ncommand = [""]', "expand.command: has to be a program with its arguments", 2),
        ('[expand]\ncommand = ["a\\u0000"]', "expand.command: has to be a program with its arguments", 2),
        ('[expand]\ncommand = "./migrate now"', "expand.command: expected `array`", 2),
        ('[undo]\ncommand = ["x"]\ntimeout_s = 0', "undo.timeout_s: has to be 0.1 to 604800, not 0", 3),
        ('[undo]\ncommand = ["x"]\ntimeout_s = 604801', "undo.timeout_s: has to be 0.1 to 604800", 3),
        ('[backfill]\nrevisions = "a:b"', "backfill.revisions: Alembic changes schemas: write a backfill", 2),
        ('[verify]\nrevisions = "a:b"', "verify.revisions: Alembic changes schemas: write a verify.sql", 2),
        ('[expand]\nrevisions = "head"', "expand.revisions: has to be FROM:TO", 2),
        ('[expand]\nrevisions = "--sql:b"', "expand.revisions: has to be FROM:TO", 2),
        ('[expand]\nrevisions = "a:b:c"', "expand.revisions: has to be FROM:TO", 2),
        ('alembic = "../a.ini"\n[expand]\nrevisions = "a:b"', "alembic: has to be a file's path in the", 1),
        ('alembic = "/a.ini"\n[expand]\nrevisions = "a:b"', "alembic: has to be a file's path in the", 1),
        (
            'alembic = ""\n[expand]\nrevisions = "a:b"',
            "alembic: has to be a file's path in the repository",
            1,
        ),
        ("", "names no phase: one of expand, backfill, verify, contract, undo", 0),
        ("[expand]", "names no phase", 0),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text, reason, line):
    with pytest.raises(InputRefused, match=reason) as caught:
        load(text)
    assert (caught.value.file, caught.value.line) == (FILE, line)


@given(st.text(max_size=20), st.text(max_size=20))
def test_revisions_are_never_an_option_nor_more_than_two(one, other):
    try:
        load(f'[expand]\nrevisions = "{one}:{other}"')
    except InputRefused:
        return
    assert (one + other).isascii()
    assert (one + other).replace("_", "").isalnum()
