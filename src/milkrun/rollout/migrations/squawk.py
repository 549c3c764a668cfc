"""squawk as a second reader of a script, where it is installed: a program that gets the text on stdin."""

from __future__ import annotations

import asyncio
import shutil
import sysconfig
from pathlib import Path

import msgspec

from milkrun.errors import MilkrunError
from milkrun.rollout.migrations.lint import Finding
from milkrun.rollout.migrations.script import Script

LIMIT_S = 30.0

# What our own rules say better, or what milkrun does for each statement by itself.
_NOT_ASKED = (
    "require-lock-timeout", "require-statement-timeout", "prefer-robust-stmts", "renaming-column", "renaming-table",
    "changing-column-type", "ban-drop-column", "ban-drop-table", "ban-drop-not-null", "adding-not-nullable-field",
    "require-concurrent-index-creation", "require-concurrent-index-deletion", "constraint-missing-not-valid",
    "transaction-nesting", "ban-uncommitted-transaction",
)  # fmt: skip


class _Said(msgspec.Struct, frozen=True):
    line: int
    message: str
    rule_name: str
    help: str | None = None


def program() -> Path | None:
    """Where squawk is: in this environment or on PATH; None when it is nowhere."""
    own = Path(sysconfig.get_path("scripts")) / "squawk"
    found = shutil.which("squawk")
    return own if own.is_file() else Path(found) if found else None


async def lint(script: Script, text: bytes) -> list[Finding]:
    """What squawk refuses in the script; nothing when it is not installed. Raises when it does not say."""
    squawk = program()
    if squawk is None:
        return []
    process = await asyncio.create_subprocess_exec(
        str(squawk), "--reporter", "json", "--no-assume-in-transaction", "--exclude", ",".join(_NOT_ASKED),
        "--stdin-filepath", "script.sql",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={},
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate(text)
    except TimeoutError:
        raise MilkrunError(
            f"squawk did not end within {LIMIT_S:g} s", remedy="see what it says by hand"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return _findings(script, msgspec.json.decode(said, type=list[_Said]))
    except msgspec.DecodeError as error:
        raise MilkrunError(
            f"squawk ended with {process.returncode} and no list of findings",
            remedy="see what it says by hand",
        ) from error


def _findings(script: Script, said: list[_Said]) -> list[Finding]:
    """With the lines of the statements that they are in: squawk counts from 0, and comments along."""
    found = []
    for each in said:
        statement = next((one for one in reversed(script.statements) if one.line <= each.line + 1), None)
        allowed = {one.values["rule"] for one in statement.asked("allow")} if statement else set()
        if each.rule_name not in allowed:
            found.append(
                Finding(
                    each.rule_name,
                    script.file,
                    each.line + 1,
                    each.message.rstrip("."),
                    each.help or "see squawk's page on it",
                )
            )
    return found
