"""The trigger that keeps an old and a new column equal while both versions write. Pure.

It decides by which of the two a writer changed, not by who writes: so it holds for every client and pooler.
"""

from __future__ import annotations

import hashlib
import re

from milkrun.errors import InputRefused
from milkrun.rollout.migrations.lexer import Kind, tokens
from milkrun.rollout.migrations.script import Directive


def create(sync: Directive) -> list[str]:
    """The statements after which the columns are kept equal; each can be repeated."""
    values = sync.values
    table, old, new = values["table"], values["old"], values["new"]
    forward = _expression(values.get("forward", old), sync.line)
    backward = _expression(values.get("backward", new), sync.line)
    name = _name(sync)
    body = _BODY.format(old=old, new=new, forward=_of_row(forward), backward=_of_row(backward))
    return [
        f"CREATE OR REPLACE FUNCTION milkrun.{name}() RETURNS trigger LANGUAGE plpgsql AS {_quoted(body)}",
        (
            f"CREATE OR REPLACE TRIGGER {name} BEFORE INSERT OR UPDATE OF {old}, {new} ON {table} "
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


# A backfill sets only the new column, to what the old one comes to: then nothing goes back, or a forward that loses
# something (upper(name)) would change the old column too.
_BODY = """
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.{new} IS NULL THEN
            NEW.{new} := {forward};
        ELSIF NEW.{old} IS NULL THEN
            NEW.{old} := {backward};
        END IF;
    ELSIF NEW.{old} IS DISTINCT FROM OLD.{old} THEN
        IF NEW.{new} IS NOT DISTINCT FROM OLD.{new} THEN
            NEW.{new} := {forward};
        END IF;
    ELSIF NEW.{new} IS DISTINCT FROM OLD.{new} AND NEW.{new} IS DISTINCT FROM {forward} THEN
        NEW.{old} := {backward};
    END IF;
    RETURN NEW;
END
"""


def _of_row(expression: str) -> str:
    return f"(SELECT {expression} FROM (SELECT NEW.*) AS milkrun_row)"  # noqa: S608 - SQL from git, as the whole script is


def _expression(text: str, line: int) -> str:
    """The text, when it can only be read as one expression in parentheses."""
    depth = 0
    for token in tokens(text):
        if token.kind is Kind.COMMENT or token.text == ";" or depth < 0:
            raise InputRefused("`forward` and `backward` are each one expression", line=line)
        if token.kind is Kind.SYMBOL:
            depth += (token.text == "(") - (token.text == ")")
    if depth or not text.strip():
        raise InputRefused("`forward` and `backward` are each one expression", line=line)
    return f"({text})"


def _name(sync: Directive) -> str:
    values = sync.values
    whole = "_".join(("sync", values["table"].replace(".", "_"), values["old"], values["new"])).lower()
    digest = hashlib.sha256(
        "|".join(values[key] for key in ("table", "old", "new")).lower().encode()
    ).hexdigest()
    return f"{re.sub(r'[^a-z0-9_]', '', whole)[:50]}_{digest[:8]}"


def _quoted(body: str) -> str:
    tag = "$milkrun$"
    if tag in body:
        raise InputRefused(f"an expression has {tag} in it")
    return f"{tag}{body}{tag}"
