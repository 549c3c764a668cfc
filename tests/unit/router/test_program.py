from __future__ import annotations

from pathlib import Path

import pytest

from milkrun.errors import PartMissing
from milkrun.router.envoy import binary as envoy
from milkrun.router.haproxy import binary as haproxy

ENVOY = "envoy  version: 0123abcd/1.40.2/Clean/RELEASE/BoringSSL"
HAPROXY = "HAProxy version 2.8.25-1 2025/08/18 - https://haproxy.org/"


def a_program(path: Path, says: str, status: int = 0) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "variable", "says", "version"),
    [
        (envoy, "MILKRUN_ENVOY", ENVOY, (1, 40, 2)),
        (haproxy, "MILKRUN_HAPROXY", HAPROXY, (2, 8, 25)),
        (haproxy, "MILKRUN_HAPROXY", "HA-Proxy version 3.1-dev7 2024/09/05", (3, 1)),
    ],
)
def test_the_program_that_was_named_is_taken_at_its_word(
    tmp_path, monkeypatch, *, kind, variable, says, version
):
    monkeypatch.setenv(variable, a_program(tmp_path / "named", says))

    found = kind.find()

    assert (found.path, found.version) == (str(tmp_path / "named"), version)
    assert found.version_text == ".".join(map(str, version))


@pytest.mark.parametrize(
    ("kind", "variable", "what"),
    [(envoy, "MILKRUN_ENVOY", "Envoy"), (haproxy, "MILKRUN_HAPROXY", "HAProxy")],
)
@pytest.mark.parametrize(("says", "status"), [("goat 1.2.3", 0), (f"{ENVOY} {HAPROXY}", 1), (None, 0)])
def test_one_that_was_named_and_is_none_is_no_reason_to_take_another(
    tmp_path, monkeypatch, *, kind, variable, what, says, status
):
    path = tmp_path / "named"
    if says is not None:
        a_program(path, says, status)
    monkeypatch.setenv(variable, str(path))

    with pytest.raises(PartMissing, match=f"{variable} names .*, which is no {what} that runs here"):
        kind.find()
