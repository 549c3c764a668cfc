"""What counting latency inside HAProxy costs: the router's own file with and without it, and with a log line instead.

    .venv/bin/python benchmarks/counting.py [--rounds N] [--seconds S] [--json]

Three HAProxies with the same service before the same instance (a fourth HAProxy, which answers by itself), loaded one
after the other in every round by `wrk` (Debian's package) on kept connections. Of each round the ratio to the plain
one is taken, and of the ratios the median: throughput, and the processor time that HAProxy itself took for a request,
which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from ports import free_port

from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import RoutingState, Server
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import binary, choice, config, counting, section
from milkrun.settings.service import TrafficSettings

GOAT = ServiceName("goat")
V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")
PLAIN, COUNTED, LOGGED = "without", "counted", "logged"
UPSTREAM = """\
defaults
  mode http
  timeout client 1m
  timeout connect 1s
  timeout server 1m
frontend up
  bind 127.0.0.1:{port}
  http-request return status 200 content-type text/plain string "0123456789"
"""


def text(kind: str, listen: int, stats: int, upstream: int) -> tuple[str, str]:
    """The router's file and its map, as they are, without what counts, or with a log line in its place."""
    servers = {
        version: Server(id=InstanceId(f"goat-{version}"), address="127.0.0.1", port=upstream)
        for version in (V1, V2)
    }
    state = RoutingState(
        shares={V1: 9_000, V2: 1_000},
        versions={version: {server.id: server} for version, server in servers.items()},
    )
    front = Front(
        name="lb-goat",
        listen=("127.0.0.1", listen),
        stats=("127.0.0.1", stats),
        routes=(Route(service=GOAT),),
        services={GOAT: TrafficSettings()},
    )
    lanes = {V1: 0, V2: 1}
    whole = config.render(config.layout(front, (), {GOAT: 8}), {GOAT: lanes}, {GOAT: state})
    if kind != COUNTED:
        whole = re.sub(r"\npeers goat\.latency\n(  .*\n)+", "\n", whole)
        whole = re.sub(r"  http-re\w+ [^\n]*txn\.(began|took|digits)[^\n]*\n", "", whole)
        assert "txn.began" not in whole
        assert "peers " not in whole
    if kind == LOGGED:
        line = '  log 127.0.0.1:9 local0\n  log-format "%b %s %ST %Tr %Ta %B"\n  bind'
        whole = whole.replace("  bind", line, 1)
    return whole, section.render_map(GOAT, state, lanes)


@contextmanager
def running(folder: Path, whole: str, slots: str = "") -> Iterator[int]:
    """The pid of a HAProxy with this file."""
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(whole)
    (folder / choice.map_name(GOAT)).write_text(slots)
    (folder / counting.BUCKETS_FILE).write_text(counting.buckets())
    process = subprocess.Popen(
        [binary.find().path, "-db", "-f", "haproxy.cfg"], cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def loaded(port: int, seconds: int) -> int:
    """How many requests were answered in this time."""
    told = subprocess.run(
        ["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{port}/milk"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"(\d+) requests in", told)
    assert found, told
    assert "Non-2xx" not in told, told
    return int(found[1])


def processor_s(pid: int) -> float:
    """What the process has taken of the processors, all threads together."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def listens(port: int) -> None:
    """Returns when it takes connections."""
    end = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, "HAProxy does not listen"
        time.sleep(0.01)


def measured(rounds: int, seconds: int) -> dict[str, dict[str, list[float]]]:
    """Throughput and processor time a request, of each kind in each round."""
    kinds = (PLAIN, COUNTED, LOGGED)
    found: dict[str, dict[str, list[float]]] = {kind: {"rate": [], "cpu_us": []} for kind in kinds}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        upstream = free_port()
        stack.enter_context(running(Path(name) / "upstream", UPSTREAM.format(port=upstream)))
        there = {}
        for kind in kinds:
            port = free_port()
            whole, slots = text(kind, port, free_port(), upstream)
            there[kind] = port, stack.enter_context(running(Path(name) / kind, whole, slots))
        for port, _ in there.values():
            listens(port)
        for number in range(rounds):
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                port, pid = there[kind]
                before = processor_s(pid)
                count = loaded(port, seconds)
                found[kind]["cpu_us"].append((processor_s(pid) - before) / count * 1e6)
                found[kind]["rate"].append(count / seconds)
    return found


def ratios(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """The medians, and the medians of the ratios to the plain one of the same round."""
    plain = found[PLAIN]
    return {
        kind: {
            "rate": statistics.median(each["rate"]),
            "rate_ratio": statistics.median(map(float.__truediv__, each["rate"], plain["rate"])),
            "cpu_us": statistics.median(each["cpu_us"]),
            "cpu_ratio": statistics.median(map(float.__truediv__, each["cpu_us"], plain["cpu_us"])),
        }
        for kind, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = ratios(measured(asked.rounds, asked.seconds))
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{asked.rounds} rounds of {asked.seconds} s, {os.cpu_count()} cores")
    for kind, each in found.items():
        print(
            f"{kind:8} {each['rate']:8,.0f} requests/s ({each['rate_ratio']:.3f})"
            f"  {each['cpu_us']:6.2f} µs of processor a request ({each['cpu_ratio']:.3f})"
        )


if __name__ == "__main__":
    main()
