"""A whole environment whose goats are containers, behind a real HAProxy."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm import Farm
from ports import free_ports

from milkrun.cli.daemon import this_host
from milkrun.settings.folder import Folder

pytestmark = pytest.mark.needs("docker")

SETTINGS = """name = "barn"
[registry]
http = "127.0.0.1:{registry}"
[agent]
docker = true
ports = [{first}, {last}]
[routers.lb-goat]
service = "goat"
listen = "127.0.0.1:{goats}"
stats = "127.0.0.1:{stats}"
"""
GOAT = """[docker]
image = "goat:{version}"
port = 8080
[health]
interval_s = 0.1
"""


class Barn(Farm):
    """One service, in containers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Folder(path)
        self.ups = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CONSUL_", "MILKRUN_"))
        }
        self.registry, self.goats, stats, first = free_ports(4)
        self.milkrun("init", str(path), here=path.parent)
        first = min(first, 65000)
        text = SETTINGS.format(
            registry=self.registry, goats=self.goats, stats=stats, first=first, last=first + 20
        )
        (path / "milkrun.toml").write_text(text)
        (path / "services" / "goat.toml").write_text(GOAT)
        self.deploys("0.0.1")

    def deploys(self, version: str) -> None:
        """All traffic goes to this version's two instances."""
        deploy = {f"version={version}": {"weight": 100, "replicas": 2}}
        (self.path / "deploy" / "goat.json").write_text(json.dumps(deploy))
        self.git("add", "--all")
        self.commit(f"All to {version}")


@pytest.fixture
def barn(tmp_path: Path, docker) -> Iterator[Barn]:
    made = Barn(tmp_path / "barn")
    try:
        yield made
    finally:
        made.end()


def _guest(barn: Barn, docker) -> str:
    """A goat that somebody else started, among those of 0.0.1; it serves on after SIGTERM until it is killed."""
    (port,) = free_ports(1)
    labels = (
        "--label",
        "milkrun.service=goat",
        "--label",
        "milkrun.version=0.0.1",
        "--label",
        "milkrun.health=/health",
    )
    variables = ("--env", "MOOD=stubborn", "--env", "MILKRUN_ADDRESS=0.0.0.0", "--env", "MILKRUN_PORT=8080")
    published = ("--publish", f"127.0.0.1:{port}:8080")
    docker.docker("run", "--detach", "--name", "guest", *labels, *variables, *published, "goat:0.0.1")
    instance = f"goat-0.0.1-{this_host()}-{port}"
    barn.eventually(lambda: "gets traffic" in barn.milkrun("explain", instance).stdout)
    return "guest"


def test_no_request_is_lost_while_containers_come_and_go(barn, docker):
    barn.up()
    follower = barn.start("logs", "goat", "-f")
    barn.until(follower, r"goat-0\.0\.1-\S+  milked by")
    guest = _guest(barn, docker)
    url = f"http://127.0.0.1:{barn.goats}/health"
    load = barn.start("load", url, "--rate", "100", "--duration", "6s", "--json")
    stopping = threading.Thread(target=docker.docker, args=("stop", "--time", "4", guest))
    stopping.start()
    with (barn.path / "deploy" / "goat.json").open() as file:
        both = json.load(file) | {"version=0.0.2": {"weight": 0, "replicas": 2}}
    (barn.path / "deploy" / "goat.json").write_text(json.dumps(both))
    barn.commit("Two more goats")
    # Who joins while it follows is shown as well.
    barn.until(follower, r"goat-0\.0\.2-\S+  milked by")
    done = barn.milkrun("weights", "goat", "0.0.1=50", "0.0.2=50")
    assert done.returncode == 0, done.stderr
    barn.deploys("0.0.2")
    barn.until(follower, r"goat-0\.0\.1-\S+  goat ends")
    stopping.join()
    out, _ = load.communicate(timeout=60)
    report = json.loads(out)
    assert (load.returncode, report["failed"]) == (0, 0), out
    assert report["sent"] == report["answered"] == 600
    follower.kill()
    follower.communicate()
    docker.docker("rm", guest)
    barn.eventually(lambda: all("0.0.2" in name for name in docker.names()) and len(docker.names()) == 2)
    with contextlib.suppress(ProcessLookupError):
        barn.milkrun("down")
    assert docker.names() == set()


def test_down_leaves_no_container_whose_agent_was_killed(barn, docker):
    """Nobody is there to tell, and a container is no process of ours: the engine knows it by the agent's label."""
    up = barn.up()
    docker.docker("run", "--detach", "--name", "not-ours", "goat:0.0.1")
    up.kill()
    up.wait()
    for name in ("rollouts", "agent", "lb-goat", "gitsync", "registry"):
        os.kill(barn.processes()[name], signal.SIGKILL)
    barn.eventually(lambda: not [name for name in barn.processes() if " " not in name])
    assert len(docker.names()) == 3
    docker.kill()
    done = barn.milkrun("down")
    assert "containers of this environment may run on: " in done.stderr
    docker.start()
    # Now they are all that is left.
    done = barn.milkrun("down")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("was left over: killed and removed") == 2
    assert docker.names() == {"not-ours"}
    assert "nothing of" in barn.milkrun("down").stderr


def test_doctor_says_whether_the_engine_answers(barn, docker):
    assert re.search(rf"ok +docker +the engine answers at {docker.socket}\n", _doctor(barn))
    docker.kill()
    fails = rf"fail +docker +the Docker engine at {docker.socket} does not answer \(.+\)\n +next: see whether it runs"
    assert re.search(fails, _doctor(barn))
    (barn.path / "services" / "goat.toml").write_text('command = ["goat"]\n')
    assert " docker " not in _doctor(barn)


def _doctor(barn: Barn) -> str:
    return barn.milkrun("doctor").stdout
