"""py-consul's own suite passes on the embedded registry wherever it passes on Consul 1.8.7, but for what is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[3]
HOME = ROOT / ".parts" / "py-consul"
TIME_S = 280

NO_LOGINS = "nobody logs in by another system's proof of who they are: tokens are made by whoever may"
NO_MESH = "there is no service mesh"
LEFT_OUT = {
    "test_acl.TestConsulAcl.test_acl_auth_method_crud": NO_LOGINS,
    "test_acl.TestConsulAcl.test_acl_binding_rule_crud": NO_LOGINS,
    "test_agent.TestAgent.test_agent_service_connect": NO_MESH,
    "test_config.TestConfig.test_config_entry_crud": NO_MESH,
    "test_connect.TestConsulConnectCA.test_ca_update_configuration": NO_MESH,
    "test_discovery_chain.": NO_MESH,
}
"""What the embedded registry may fail although Consul passes it, and why."""


def run(kind: str, folder: Path) -> dict[str, bool]:
    """Each test of theirs by name, and whether it passed."""
    shutil.copytree(HOME / "tests", folder / "tests")
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    report = folder / "report.xml"
    paths = [str(Path(__file__).parent), str(HOME), str(HOME / "imports")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "registries", f"--junitxml={report}", "tests"]
    finished = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "MILKRUN_KIND": kind, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=TIME_S,
        check=False,
    )
    assert report.is_file(), finished.stdout + finished.stderr
    return {
        f"{case.attrib['classname'].removeprefix('tests.').removeprefix('api.')}.{case.attrib['name']}": not any(
            case.find(kind) is not None for kind in ("failure", "error", "skipped")
        )
        for case in ET.parse(report).iter("testcase")
    }


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, bool]]]:
    with ThreadPoolExecutor() as runs:
        running = {
            kind: runs.submit(run, kind, tmp_path_factory.mktemp(kind)) for kind in ("embedded", "consul")
        }
        yield {kind: each.result() for kind, each in running.items()}


@pytest.mark.needs("consul", "py-consul")
def test_what_passes_on_consul_passes_here(scores):
    ours, theirs = scores["embedded"], scores["consul"]
    assert ours.keys() == theirs.keys()
    assert sum(theirs.values()) > 130
    worse = {name for name, passed in theirs.items() if passed and not ours[name]}
    print(f"py-consul: {sum(ours.values())} pass here, {sum(theirs.values())} on Consul, of {len(ours)}")
    assert sorted(name for name in worse if not name.startswith(tuple(LEFT_OUT))) == []
    assert sum(ours.values()) >= sum(theirs.values())


@pytest.mark.needs("consul", "py-consul")
def test_what_is_left_out_is_left_out_for_a_reason_that_still_holds(scores):
    ours, theirs = scores["embedded"], scores["consul"]
    worse = {name for name, passed in theirs.items() if passed and not ours[name]}
    assert [each for each in LEFT_OUT if not any(name.startswith(each) for name in worse)] == []
