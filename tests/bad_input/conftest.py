"""A real `milkrun registry` and the description of its API, for tests that send it what it should refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_input.description import DESCRIPTION
from conformance.registries import Server, milkrun

ANSWERED_WITHIN_S = 20.0


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


@pytest.fixture(scope="module")
def described():
    import schemathesis  # a second to import, and only needed here

    return schemathesis.openapi.from_path(DESCRIPTION)


@pytest.fixture(scope="module")
def send(registry, guarded):
    """Sends a case of Schemathesis' where it belongs; the answer comes soon and is as described."""
    import requests
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    judges = [CHECKS.get_one(name) for name in ("response_schema_conformance", "content_type_conformance")]
    with requests.Session() as session:
        session.trust_env = False

        def sent(case):
            tokens = case.path.startswith("/v1/acl/")
            url = f"http://127.0.0.1:{(guarded if tokens else registry).port}"
            headers = {"X-Consul-Token": guarded.token} if tokens else {}
            reply = case.call(url, session=session, headers=headers, timeout=ANSWERED_WITHIN_S)
            case.validate_response(reply, checks=judges)
            return reply

        yield sent
