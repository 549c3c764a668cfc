"""What in a migration's script would stall or break somebody, each with the safe way to write it. Pure.

The rules look at a statement's words, not at its meaning: what they cannot be sure of they refuse, and
`-- milkrun: allow rule=NAME because="..."` above the statement takes it on somebody's own word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from milkrun.rollout.migrations.lexer import Kind
from milkrun.rollout.migrations.rules import CHANGES, RULES
from milkrun.rollout.migrations.script import Script, Statement, names
from milkrun.settings.migration import Phase


class Finding(msgspec.Struct, frozen=True):
    """Something that a rule refuses, in `file` at `line`; `remedy` is the safe way to write it."""

    rule: str
    file: str
    line: int
    reason: str
    remedy: str

    @property
    def text(self) -> str:
        """As it is shown."""
        return f"{self.file}:{self.line}: {self.rule}: {self.reason}; {self.remedy}"


def lint(script: Script, phase: Phase) -> list[Finding]:
    """All that the rules refuse in the script of that phase, in the order of the lines."""
    found = []
    for statement in script.statements:
        allowed = {each.values["rule"] for each in statement.asked("allow")}
        found += [each for each in _findings(script, statement, phase) if each.rule not in allowed]
    if phase != "expand":
        found += [
            Finding(
                "sync",
                script.file,
                each.line,
                "two columns are kept equal from the expansion on",
                "put it in expand.sql",
            )
            for each in script.syncs
        ]
    return sorted(found, key=lambda each: each.line)


def _findings(script: Script, statement: Statement, phase: Phase) -> Iterator[Finding]:
    words = flat(statement)
    for rule in RULES:
        if (
            phase in rule.phases
            and rule.pattern.search(words)
            and not (rule.unless and rule.unless.search(words))
        ):
            yield Finding(rule.name, script.file, statement.line, rule.reason, rule.remedy)
    if phase == "backfill":
        yield from _backfill(script, statement, words)
    elif names(statement) or statement.asked("backfill"):
        yield Finding(
            "batches",
            script.file,
            statement.line,
            ":from and :upto are for batches",
            "put it in backfill.sql",
        )
    if phase in CHANGES:
        yield from _set_not_null(script, statement, words)


def _backfill(script: Script, statement: Statement, words: str) -> Iterator[Finding]:
    def finding(reason: str) -> Finding:
        return Finding(
            "batches", script.file, statement.line, reason,
            "above an UPDATE: -- milkrun: backfill table=T key=id, and in it: WHERE id BETWEEN :from AND :upto AND ...",
        )  # fmt: skip

    asked = statement.asked("backfill")
    if not re.match(r"(update|insert|delete)\b", words):
        yield finding("a backfill is an UPDATE, an INSERT ... SELECT or a DELETE")
    elif len(asked) != 1:
        yield finding("without batches all its rows are locked until it ends")
    elif set(names(statement)) != {"from", "upto"}:
        yield finding("each batch has its own :from and :upto, and nothing else")
    elif not re.search(rf"\b{re.escape(asked[0].values['key'].lower())} between :from and :upto\b", words):
        yield finding(f"its batches go by `{asked[0].values['key']}`, which is not between :from and :upto")


def _set_not_null(script: Script, statement: Statement, words: str) -> Iterator[Finding]:
    """SET NOT NULL reads the whole table, unless a validated check says already that there is none."""
    if not re.match(r"alter table .* set not null\b", words):
        return
    columns = re.findall(r"alter (?:column )?(\S+) set not null\b", words)
    before = script.statements[: script.statements.index(statement)]
    earlier = [flat(each) for each in before]
    for column in columns:
        checks = {
            name
            for text in earlier
            for name in re.findall(rf"add constraint (\S+) check \( {re.escape(column)} is not null \)", text)
        }
        validated = {name for text in earlier for name in re.findall(r"validate constraint (\S+)", text)}
        if not checks & validated:
            yield Finding(
                "set-not-null", script.file, statement.line,
                f"the whole table is read for `{column}` while nobody reads or writes",
                f"before it: ADD CONSTRAINT c CHECK ({column} IS NOT NULL) NOT VALID, then VALIDATE CONSTRAINT c",
            )  # fmt: skip


def flat(statement: Statement) -> str:
    """The statement on one line: words in small letters, one space between tokens, each string as ''."""
    return " ".join("''" if token.kind is Kind.STRING else token.key for token in statement.tokens)
