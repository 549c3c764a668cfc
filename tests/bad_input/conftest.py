"""A real `milkrun registry` and the description of its API, for tests that send it what it should refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_input.description import DESCRIPTION
from conformance.registries import Server, milkrun


@pytest.fixture(scope="session")
def description() -> dict[str, Any]:
    return json.loads(DESCRIPTION.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-input")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[Server]:
    with milkrun(folder) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that nobody may use without its `token`: where tokens and policies are made."""
    folder = tmp_path_factory.mktemp("guarded")
    with milkrun(folder, acl="closed") as server:
        server.token = (folder / "data" / "token").read_text().strip()
        yield server
