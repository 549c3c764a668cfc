"""Aligned text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "  ") -> list[str]:
    """The rows under the header in columns; a column whose header starts with `>` stands to the right."""
    right = [name.startswith(">") for name in header]
    lines = [[name.lstrip(">") for name in header], *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return [
        (
            indent
            + "  ".join(
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            )
        ).rstrip()
        for line in lines
    ]


def percent(fraction: float | None) -> str:
    """A share as people read it, to 0.01 %; empty for None."""
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def short(commit: str | None) -> str:
    """The first seven digits of a commit's id; empty for None."""
    return (commit or "")[:7]
