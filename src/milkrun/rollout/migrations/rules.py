"""The rules that a migration's statements are held to: what is refused where, why, and the safe way to write it. Pure.

A rule's pattern looks at a statement on one line, in small letters, with one space between its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from milkrun.settings.migration import PHASES, Phase


class Rule(msgspec.Struct, frozen=True):
    """`pattern` in a statement's words is refused, but where `unless` is in it too."""

    name: str
    phases: tuple[Phase, ...]
    pattern: re.Pattern[str]
    reason: str
    remedy: str
    unless: re.Pattern[str] | None = None


CHANGES: tuple[Phase, ...] = ("expand", "contract", "undo")


def rule(
    name: str, phases: Iterable[Phase], pattern: str, reason: str, remedy: str, *, unless: str = ""
) -> Rule:
    """A rule with its patterns compiled."""
    return Rule(
        name, tuple(phases), re.compile(pattern), reason, remedy, re.compile(unless) if unless else None
    )


RULES = (
    rule(
        "transaction",
        PHASES,
        r"^(begin|start transaction|commit|end|rollback|abort|savepoint|release|"
        r"prepare transaction|lock)\b",
        "each statement is in a transaction of its own, with its own retries",
        "leave it out",
    ),
    rule(
        "session",
        PHASES,
        r"^(set|reset|discard)\b",
        "the next statement may run in another session after a crash",
        "leave it out; time limits are settings of [migration]",
    ),
    rule(
        "copy",
        PHASES,
        r"^(copy|call|do|execute|vacuum|cluster|reindex|refresh|truncate)\b",
        "nobody can see what it locks, or it cannot be taken up again after a crash",
        "write the statements out, or do it by hand outside of rollouts",
    ),
    rule(
        "drop",
        ("expand",),
        r"^drop (?!index concurrently)|^alter table .* drop (?!not null|default|constraint|"
        r"expression|identity)",
        "old instances still use what it takes away",
        "put it in contract.sql, which runs when none of them is left",
    ),
    rule(
        "rename",
        ("expand",),
        r"^alter .* rename\b|^alter .* set schema\b",
        "the same statement cannot be right for old and new instances",
        "add a column and keep both equal: -- milkrun: sync table=T old=A new=B; drop the "
        "old one in contract.sql",
    ),
    rule(
        "type-change",
        CHANGES,
        r"^alter table .* alter (column )?\S+ (set data )?type\b",
        "it rewrites the table, and nobody reads or writes meanwhile",
        'add a column of the new type with -- milkrun: sync ... forward="...", backfill it, '
        "and drop the old one in contract.sql",
    ),
    rule(
        "rewrite",
        CHANGES,
        r"^alter table .* (set (un)?logged|set tablespace|set access method)\b",
        "it rewrites the table, and nobody reads or writes meanwhile",
        "fill a new table in batches",
    ),
    rule(
        "volatile-default",
        ("expand",),
        r"^alter table .* add (column )?.*\bdefault .*?\b(random|gen_random_uuid|"
        r"uuid_generate_v\w+|clock_timestamp|timeofday|nextval) \(",
        "a default that differs from row to row rewrites the table",
        "add the column without a default, set the default in a second statement, and backfill",
    ),
    rule(
        "generated",
        ("expand",),
        r"^alter table .* add (column )?.*\b(generated always as \(.*\) stored|"
        r"generated .* as identity|(small|big)?serial)\b",
        "it rewrites the table, and nobody reads or writes meanwhile",
        "add a plain column, fill it by a trigger, and backfill",
    ),
    rule(
        "not-null",
        ("expand",),
        r"^alter table .* add (column )?(?!constraint).* not null\b",
        "rows that are there have no value for it, and old instances give none",
        "add it without NOT NULL, or with a constant DEFAULT",
        unless=r"\bdefault\b| not valid\b|\bcheck \(",
    ),
    rule(
        "index",
        CHANGES,
        r"^create (unique )?index (?!concurrently)",
        "nobody writes to the table until it is built",
        "CREATE INDEX CONCURRENTLY name ON ...",
    ),
    rule(
        "index-name",
        CHANGES,
        r"^create (unique )?index concurrently (if not exists )?on\b",
        "an index that was left half built can only be found by its name",
        "give it a name",
    ),
    rule(
        "drop-index",
        CHANGES,
        r"^drop index (?!concurrently)",
        "it waits for everybody who uses the table, and they wait for it",
        "DROP INDEX CONCURRENTLY ...",
    ),
    rule(
        "constraint",
        CHANGES,
        r"^alter table .* add (constraint \S+ )?(check|foreign key)\b",
        "the whole table is read while nobody writes",
        "add it with NOT VALID, and a second statement: ALTER TABLE ... VALIDATE CONSTRAINT ...",
        unless=r"\bnot valid\b",
    ),
    rule(
        "unique",
        CHANGES,
        r"^alter table .* add (constraint \S+ )?(unique|primary key|exclude)\b",
        "an index is built while nobody reads or writes",
        "CREATE UNIQUE INDEX CONCURRENTLY first, then ADD CONSTRAINT ... USING INDEX",
        unless=r"\busing index\b",
    ),
    rule(
        "column-constraint",
        ("expand",),
        r"^alter table .* add (column )?(?!constraint|check|foreign|unique|primary|"
        r"exclude).*\b(unique|primary key|references)\b",
        "the constraint is made, and checked, while nobody writes",
        "add the plain column, and the constraint in statements of its own",
    ),
    rule(
        "several-changes",
        CHANGES,
        r"^alter table .* (validate constraint .*,|.*, validate constraint)",
        "VALIDATE is slow and needs little; beside another change it holds that one's lock",
        "put it in a statement of its own",
    ),
    rule(
        "data",
        ("expand", "contract", "undo"),
        r"^(with .* )?(insert|update|delete|merge)\b",
        "rows are locked for as long as all of it takes",
        "put it in backfill.sql, which goes by batches",
    ),
    rule(
        "reads",
        ("verify",),
        r"^(?!select\b|with\b|table\b|values\b)|\b(insert|update|delete|merge) |" r"\bfor (no key )?update\b",
        "a check changes nothing",
        "write a SELECT of one number that has to be 0",
    ),
)
