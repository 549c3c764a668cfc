"""Migrations as text. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from milkrun.cli.table import table
from milkrun.settings.migration import PHASES

if TYPE_CHECKING:
    from milkrun.cli.migrate_look import PlanView, StatusView
    from milkrun.rollout.migrations.standing import PhaseStanding

SQL_SHOWN = 100
_HOW = {
    "briefly": "own transaction, short locks",
    "slowly": "own transaction, in nobody's way",
    "build": "concurrently",
    "unbuild": "concurrently",
    "command": "a program, which no rule looks into",
}
_WHEN = {
    "expand": "before the first new instance",
    "backfill": "before the first share",
    "verify": "before each share",
    "contract": "by `milkrun migrate contract`",
    "undo": "when the rollout is taken back or undone",
}


def plan_lines(view: PlanView) -> list[str]:
    """The statements phase by phase, then what is refused."""
    found = [f"{view.service} {view.version}: what it does to the database (digest {view.digest})"]
    for phase in PHASES:
        own = [one for one in view.statements if one.phase == phase]
        if own:
            found += ["", f"{phase}, {_WHEN[phase]}"]
            rows = [
                [f"{one.file.rpartition('/')[2]}:{one.line}", _HOW.get(one.how, one.how), _short(one.sql)]
                for one in own
            ]
            found += table(["", "", ""], rows)[1:]
    if view.findings:
        found += ["", "refused:", *(f"  {finding.text}" for finding in view.findings)]
    return found


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= SQL_SHOWN else f"{text[: SQL_SHOWN - 1]}…"


def status_lines(view: StatusView) -> list[str]:
    """A line for each phase that was begun, whom the schema does not suit, and the contract that is due."""
    found = [f"{view.service}: migrations"]
    if view.phases:
        rows = [[one.version, one.phase, _state(one), f"{one.rows:,}" if one.rows else "", _at(one.at)]
                for one in view.phases]  # fmt: skip
        found += table(["version", "phase", "statements", ">rows", "last"], rows)
    else:
        found.append("  nothing was begun yet")
    if view.unsuited:
        names = ", ".join(f"{name} (since {since})" for name, since in view.unsuited.items())
        found += ["", f"  the schema no longer suits {names}"]
    if view.contract:
        found += ["", f"contract of {view.contract.version}: {view.contract.begins}"]
        found += [f"  waits for: {wait}" for wait in view.contract.waits_for]
        found.append(f"next: milkrun migrate contract {view.service}")
    return found


def _state(one: PhaseStanding) -> str:
    return f"{one.done} done" + (f", {one.begun} under way" if one.begun else "")


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
