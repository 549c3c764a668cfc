"""What Alembic writes as the script of a phase: its statements, judged and carried out as anybody's. Pure.

Two things in it are Alembic's own. It opens and ends transactions, where each statement here has its own; and it keeps
the name of the newest revision in a table, which no client of the service looks at.
"""

from __future__ import annotations

import re

import msgspec

from milkrun.errors import InputRefused
from milkrun.rollout.migrations.lint import flat
from milkrun.rollout.migrations.script import Directive, Item, Script, Statement, parse

_BOOKKEEPING = re.compile(
    r"create table {table} \( version_num varchar \( 32 \) not null ,"
    r" constraint {table}_pkc primary key \( version_num \) \)"
    r"|insert into {table} \( version_num \) values \( '' \)( returning {table} \. version_num)?"
    r"|update {table} set version_num = '' where {table} \. version_num = ''"
    r"|delete from {table} where {table} \. version_num = ''".replace("{table}", "alembic_version")
)
_EXCUSED = ("data", "prefer-text-field")
"""The rules, ours and squawk's, that Alembic's own statements do not follow."""


def script(text: bytes, file: str) -> tuple[Script, bytes]:
    """The script that Alembic wrote, without its transactions, and the text of it.

    Raises InputRefused when there is no statement in it but Alembic's own.
    """
    plain = text.decode(errors="replace")
    for statement in parse(text, file).statements:
        if flat(statement) in ("begin", "commit"):
            start, end = statement.tokens[0].start, statement.tokens[-1].end
            end += plain[end : end + 1] == ";"
            # Spaces, so that each line keeps its number.
            plain = plain[:start] + " " * (end - start) + plain[end:]
    kept = plain.encode()
    found = Script(file, tuple(_excused(item) for item in parse(kept, file).items))
    if all(_own(statement) for statement in found.statements) and not found.syncs:
        raise InputRefused(
            "there is nothing between these two revisions",
            file=file,
            remedy="write FROM:TO in the order in which Alembic goes: for undo, the newer one first",
        )
    return found, kept


def _excused(item: Item) -> Item:
    if not isinstance(item, Statement) or not _own(item):
        return item
    because = "Alembic's own bookkeeping"
    excuses = tuple(Directive("allow", {"rule": rule, "because": because}, item.line) for rule in _EXCUSED)
    return msgspec.structs.replace(item, directives=(*item.directives, *excuses))


def _own(statement: Statement) -> bool:
    return bool(_BOOKKEEPING.fullmatch(flat(statement)))
