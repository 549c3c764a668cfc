"""Writes to the person or the script at the other end: data to stdout, talk to stderr, colour for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import click
import msgspec

from milkrun.errors import MilkrunError

_GOOD = r"\b(passing|healthy|serving|alive|ok|in step)\b"
_BAD = r"\b(critical|lost|unhealthy|backoff|refused|held|holds|missing|fail|gone)\b"
_UNSURE = r"\b(warning|warn|maintenance|draining|drained|starting|behind)\b"


def is_for_a_person() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def can_be_redrawn() -> bool:
    """Whether stdout is a terminal on which a screen can be shown again and again in the same place."""
    return is_for_a_person() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def show(lines: Iterable[str]) -> None:
    """The lines are on stdout; on a terminal with the states in colour."""
    if is_for_a_person() and not os.environ.get("NO_COLOR"):
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        for line in lines:
            console.print(coloured(line))
        return
    for line in lines:
        click.echo(line)


def coloured(line: str) -> Any:
    """The line as rich text. Words that say a state have its colour; the words themselves say it too."""
    from rich.text import Text

    text = Text(line)
    if line and line == line.lstrip():
        text.stylize("bold")
    elif line.strip() and line.upper() == line:
        text.stylize("dim")
    text.highlight_regex(_GOOD, "green")
    text.highlight_regex(_UNSURE, "yellow")
    text.highlight_regex(_BAD, "red")
    return text


def data(value: Any) -> None:
    """The value is on stdout as one JSON object."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say(line: str) -> None:
    """The line is on stderr: talk, no data."""
    click.echo(line, err=True)


def failed(error: MilkrunError, *, json: bool) -> int:
    """The error is told and its exit status returned."""
    say(f"milkrun: {error.message}")
    if error.remedy:
        say(f"  next: {error.remedy}")
    if json:
        data(
            {
                "schema_version": 1,
                "error": {"code": error.code, "message": error.message, "remedy": error.remedy},
            }
        )
    return error.exit_status
