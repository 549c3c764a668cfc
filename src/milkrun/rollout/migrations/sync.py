"""The trigger that keeps old and new columns equal while both versions write. Pure.

It decides by which of them a writer changed, not by who writes: so it holds for every client and pooler.
"""

from __future__ import annotations

import hashlib
import re

from milkrun.errors import InputRefused
from milkrun.rollout.migrations.script import Directive, columns, expressions


def create(sync: Directive) -> list[str]:
    """The statements after which the columns are kept equal; each can be repeated."""
    values = sync.values
    old, new = columns(values["old"]), columns(values["new"])
    forward = expressions(values.get("forward", values["old"]), sync.line)
    backward = expressions(values.get("backward", values["new"]), sync.line)
    name = _name(sync)
    body = _BODY.format(
        old_changed=_changed(old),
        new_changed=_changed(new),
        old_missing=_missing("NEW", old),
        new_missing=_missing("NEW", new),
        to_new=_set(new, forward),
        to_old=_set(old, backward),
        completed=_completed(new, forward),
        new_differs=_differs(new, forward),
    )
    return [
        f"CREATE OR REPLACE FUNCTION milkrun.{name}() RETURNS trigger LANGUAGE plpgsql AS {_quoted(body)}",
        (
            f"CREATE OR REPLACE TRIGGER {name} BEFORE INSERT OR UPDATE OF {', '.join(old + new)} ON {values['table']} "
            f"FOR EACH ROW EXECUTE FUNCTION milkrun.{name}()"
        ),
    ]


def drop(sync: Directive) -> list[str]:
    """The statements after which they no longer are; each can be repeated."""
    name = _name(sync)
    return [
        f"DROP TRIGGER IF EXISTS {name} ON {sync.values['table']}",
        f"DROP FUNCTION IF EXISTS milkrun.{name}()",
    ]


# A backfill sets only the new columns, to what the old ones come to: then nothing goes back, or a forward that loses
# something (upper(name)) would change the old columns too.
_BODY = """
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF {new_missing} THEN
            {to_new}
        ELSIF {old_missing} THEN
            {to_old}
        END IF;
    ELSIF {old_changed} THEN
        IF NOT ({new_changed}) THEN
            {to_new}
        END IF;
    ELSIF {new_changed} THEN
        {completed}
        IF {new_differs} THEN
            {to_old}
        END IF;
    END IF;
    RETURN NEW;
END
"""


def _changed(names: list[str]) -> str:
    return " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in names)


def _missing(row: str, names: list[str]) -> str:
    return " AND ".join(f"{row}.{name} IS NULL" for name in names)


def _differs(names: list[str], values: list[str]) -> str:
    pairs = zip(names, values, strict=True)
    return " OR ".join(f"NEW.{name} IS DISTINCT FROM {_of_row(value)}" for name, value in pairs)


def _set(names: list[str], values: list[str]) -> str:
    """All at once: no value is made from one that was set before it."""
    targets = ", ".join(f"NEW.{name}" for name in names)
    return f"SELECT {', '.join(f'({value})' for value in values)} INTO {targets} {_FROM_ROW};"


def _completed(names: list[str], values: list[str]) -> str:
    """Who sets one of several new columns in a row that the backfill did not reach yet means the others as they are."""
    if len(names) == 1:
        return ""
    each = [
        f"IF NEW.{name} IS NULL THEN {_set([name], [value])} END IF;"
        for name, value in zip(names, values, strict=True)
    ]
    return f"IF {_missing('OLD', names)} THEN {' '.join(each)} END IF;"


_FROM_ROW = "FROM (SELECT NEW.*) AS milkrun_row"


def _of_row(expression: str) -> str:
    return f"(SELECT ({expression}) {_FROM_ROW})"


def _name(sync: Directive) -> str:
    values = sync.values
    whole = "_".join(("sync", values["table"], values["old"], values["new"])).lower()
    digest = hashlib.sha256(
        "|".join(values[key] for key in ("table", "old", "new")).lower().encode()
    ).hexdigest()
    return f"{re.sub(r'[^a-z0-9_]', '', re.sub(r'[.,]', '_', whole))[:50]}_{digest[:8]}"


def _quoted(body: str) -> str:
    tag = "$milkrun$"
    if tag in body:
        raise InputRefused(f"an expression has {tag} in it")
    return f"{tag}{body}{tag}"
