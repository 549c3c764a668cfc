from __future__ import annotations

import pytest

from milkrun.errors import MilkrunError
from milkrun.rollout.migrations import squawk
from milkrun.rollout.migrations.script import parse


async def findings(text):
    return [(each.rule, each.line) for each in await squawk.lint(parse(text, "m.sql"), text)]


async def test_squawk_says_what_it_knows_with_our_lines():
    text = b"select 1;\nalter table b add column x char(3);\n"
    assert await findings(text) == [("ban-char-field", 2)]
    assert await findings(b"alter table b add column x text;") == []


async def test_somebodys_own_word_holds_for_squawk_too():
    text = b'-- milkrun: allow rule=ban-char-field because="a code of three"\nalter table b add column x char(3);'
    assert await findings(text) == []


async def test_without_squawk_there_are_only_our_own_rules(monkeypatch):
    monkeypatch.setattr(squawk, "program", lambda: None)
    assert await findings(b"alter table b add column x char(3);") == []


async def test_a_squawk_that_says_nothing_is_not_taken_for_a_good_word(monkeypatch):
    monkeypatch.setattr(squawk, "program", lambda: "/bin/false")
    with pytest.raises(MilkrunError, match="no list of findings"):
        await findings(b"alter table b add column x text;")
