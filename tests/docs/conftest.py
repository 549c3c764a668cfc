"""The documents, read once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def page():
    """A document's text, by its path in the repository."""

    def read(path: str) -> str:
        return (ROOT / path).read_text()

    return read


@pytest.fixture(scope="session")
def section():
    """The part of a text under one `## heading`; the heading must be there."""

    def found(text: str, heading: str) -> str:
        _, there, rest = text.partition(f"\n## {heading}\n")
        assert there, f"there is no section `## {heading}`"
        return rest.partition("\n## ")[0]

    return found


@pytest.fixture(scope="session")
def rows():
    """The cells of every table row in a text, without code ticks around a whole cell."""

    def cells(text: str) -> list[list[str]]:
        table = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
        return [[cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")] for line in table]

    return cells
