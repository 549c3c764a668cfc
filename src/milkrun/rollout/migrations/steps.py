"""A script as the steps by which it is carried out, each with how it is run and what it is known by later. Pure."""

from __future__ import annotations

import enum
import hashlib
import shlex
from collections.abc import Iterable, Iterator

import msgspec

from milkrun.rollout.migrations import sync
from milkrun.rollout.migrations.lexer import Kind
from milkrun.rollout.migrations.lint import flat
from milkrun.rollout.migrations.script import Directive, Script, Statement
from milkrun.settings.migration import Phase


class How(enum.Enum):
    """How a step is run."""

    BRIEFLY = "briefly"
    """In a transaction of its own, under a short lock_timeout."""
    SLOWLY = "slowly"
    """In a transaction of its own, for as long as it takes: its locks are in nobody's way."""
    BUILD = "build"
    """CREATE INDEX CONCURRENTLY: in no transaction, and it may leave an index that is not valid."""
    UNBUILD = "unbuild"
    """DROP INDEX CONCURRENTLY: in no transaction."""
    COMMAND = "command"
    """A program, which does what it does."""


class Index(msgspec.Struct, frozen=True):
    """What a CREATE INDEX CONCURRENTLY makes: its name as the catalog has it, and the table as written."""

    name: str
    table: str


class Command(msgspec.Struct, frozen=True):
    """A program with its arguments that carries out a phase, in `timeout_s` at most; `file` names it in `line`."""

    words: list[str]
    timeout_s: float
    file: str
    line: int

    @property
    def text(self) -> str:
        """As it is shown, and known by later."""
        return shlex.join(self.words)

    @property
    def place(self) -> str:
        """Where it is written."""
        return f"{self.file}:{self.line}"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Statement `number` (from 1) of a phase: it is recorded with `digest` when it is done.

    Where a program does it, `sql` is how that is called.
    """

    phase: Phase
    number: int
    how: How
    sql: str
    file: str
    line: int
    index: Index | None = None
    command: Command | None = None

    @property
    def digest(self) -> str:
        """The same for the same text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:16]

    @property
    def place(self) -> str:
        """Where it is written."""
        return f"{self.file}:{self.line}"


def steps(
    script: Script, phase: Phase, *, ending: Iterable[Directive] = (), command: Command | None = None
) -> list[Step]:
    """The script's steps in order, or the command, behind those that end the pairs of columns in `ending`."""
    found: list[Step] = []
    for line, sql, statement in _texts(script, ending):
        how = _how(statement) if statement else How.BRIEFLY
        index = _index(statement) if statement and how is How.BUILD else None
        found.append(
            Step(
                phase=phase, number=len(found) + 1, how=how, sql=sql, file=script.file, line=line, index=index
            )
        )
    if command:
        found.append(
            Step(
                phase=phase, number=len(found) + 1, how=How.COMMAND, sql=command.text, file=command.file,
                line=command.line, command=command,
            )
        )  # fmt: skip
    return found


def _texts(script: Script, ending: Iterable[Directive]) -> Iterator[tuple[int, str, Statement | None]]:
    for pair in ending:
        for text in sync.drop(pair):
            yield 1, text, None
    for item in script.items:
        if isinstance(item, Statement):
            yield item.line, item.text, item
        else:
            for text in sync.create(item):
                yield item.line, text, None


def _how(statement: Statement) -> How:
    words = flat(statement)
    if words.startswith(("create index concurrently ", "create unique index concurrently ")):
        return How.BUILD
    if words.startswith("drop index concurrently "):
        return How.UNBUILD
    if words.startswith("alter table ") and " validate constraint " in words and " , " not in words:
        return How.SLOWLY
    return How.BRIEFLY


def _index(statement: Statement) -> Index:
    found = [*statement.tokens]
    keys = statement.keys
    at = keys.index("concurrently") + 1
    at += 3 if keys[at : at + 3] == ["if", "not", "exists"] else 0
    name = found[at]
    table = keys.index("on", at) + 1
    table += keys[table] == "only"
    end = next(number for number in range(table, len(keys)) if keys[number] in ("(", "using"))
    plain = name.text[1:-1].replace('""', '"') if name.kind is Kind.QUOTED else name.key
    return Index(
        plain, statement.text[found[table].start - found[0].start : found[end - 1].end - found[0].start]
    )
