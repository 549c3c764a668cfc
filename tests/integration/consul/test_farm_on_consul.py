"""The same parts on a real Consul: another address, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm import Farm
from ports import free_ports

pytestmark = pytest.mark.needs("consul")

PARTS = (["gitsync"], ["agent"], ["router", "lb-goat"], ["router", "lb-farmer"])


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as reply:
        return reply.status == 200
    return False


@pytest.fixture
def consul_farm(tmp_path: Path) -> Iterator[Farm]:
    """A dairy farm whose registry is a real Consul agent; no `milkrun registry` anywhere."""
    farm = Farm(tmp_path / "farm")
    root = Path(__file__).parents[3]
    binary = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(root / ".parts" / "consul")
    server, serf = free_ports(2)
    ports = {"http": farm.registry, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1}
    settings = tmp_path / "consul.json"
    settings.write_text(json.dumps({"node_name": "n1", "ports": ports, "disable_update_check": True}))
    consul = subprocess.Popen(
        [binary, "agent", "-dev", "-bind", "127.0.0.1", "-config-file", str(settings), "-log-level", "err"],
        stdout=subprocess.DEVNULL,
    )
    started = []
    try:
        farm.eventually(lambda: answers(f"http://127.0.0.1:{farm.registry}/v1/health/node/n1"), 60)
        started = [farm.start(*part) for part in PARTS]
        farm.eventually(lambda: answers(farm.url), 60)
        yield farm
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, 143), process.stdout.read()
        assert farm.processes() == {}
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
        farm.end()
        consul.kill()
        consul.wait()


def test_the_farm_runs_on_a_real_consul(consul_farm: Farm):
    status = json.loads(consul_farm.milkrun("status", "--json").stdout)
    assert {service["service"] for service in status["services"]} >= {"goat", "farmer"}

    changed = consul_farm.milkrun("weights", "goat", "0.0.1=10", "0.0.2=90")

    assert changed.returncode == 0, changed.stderr
    shares = json.loads(consul_farm.milkrun("weights", "goat", "--json").stdout)
    assert "90" in json.dumps(shares)

    wish = {"version=0.0.1": {"weight": 10, "replicas": 1}, "version=0.0.3": {"weight": 90, "replicas": 1}}
    (consul_farm.path / "deploy" / "goat.json").write_text(json.dumps(wish))
    consul_farm.commit("one goat less, a new one, 0.0.2 away")

    def moved() -> bool:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{consul_farm.registry}/v1/health/service/goat?passing"
        ) as reply:
            found = sorted(entry["Service"]["Meta"]["version"] for entry in json.load(reply))
        return found == ["0.0.1", "0.0.3"]

    consul_farm.eventually(moved, 60)
