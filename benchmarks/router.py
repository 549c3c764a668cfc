"""The router at scale: how soon a change is in HAProxy, what it costs, and what a cold start takes, on this machine.

    .venv/bin/python benchmarks/router.py [--sizes 100,1000,10000] [--rounds N] [--json]

Of each size, one service with so many instances, all of them addresses on loopback behind one listener. A change is
timed from the registry's acknowledgement until HAProxy's runtime has it, read on HAProxy's socket by this program and
not by the router: a weight when the map has it, an instance when HAProxy has the server, a removal when the server
takes nothing new. The peer is the classic loop (watch, render the whole file, check it, reload) in a process of its
own beside an HAProxy of its own, under the same registry; the two are changed by turns. `busy` is 100 changes a second,
each of one instance's weight, for ten seconds. A cold start has an empty folder and lasts until a request is answered.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from classic import render
from ports import free_ports

from milkrun.router.haproxy import binary

START_S = 120.0
CHANGED_S = 60.0
GENERATION = iter(range(1, 1_000_000))
NEW = "new"


class Row(msgspec.Struct):
    """One kind of change at one size, in milliseconds from the acknowledgement."""

    what: str
    instances: int
    ours_ms: list[float] = []
    classic_ms: list[float] = []

    def line(self) -> str:
        ours, peer = sorted(self.ours_ms), sorted(self.classic_ms)
        text = f"{self.what:16}{self.instances:>7}{statistics.median(ours):>9.1f}{p99(ours):>9.1f}"
        if peer:
            ratio = statistics.median(peer) / statistics.median(ours)
            text += f"{statistics.median(peer):>12.1f}{p99(peer):>9.1f}{ratio:>8.1f}"
        return text


def p99(ordered: list[float]) -> float:
    return ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]


# The registry, asked on one kept connection


class Client:
    """Blocking requests to the registry; `put` returns when it has acknowledged."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._connection.makefile("rb")

    def put(self, path: str, body: object) -> float:
        data = json.dumps(body).encode()
        head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        self._connection.sendall(head + data)
        status = self._file.readline()
        length = 0
        while (line := self._file.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = self._file.read(length)
        if b" 200 " not in status:
            sys.exit(f"the registry answered {status!r} {answer!r} to {path}")
        return time.perf_counter()


def registered(name: str, number: int, upstream: int, weight: int = 1) -> dict[str, object]:
    address = f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"
    return {
        "Node": f"node-{number % 50}",
        "Address": address,
        "Service": {
            "ID": name,
            "Service": "goat",
            "Tags": [f"version={'0.0.1' if number % 2 else '0.0.2'}"],
            "Address": address,
            "Port": upstream,
            "Weights": {"Passing": weight, "Warning": 1},
        },
        "Check": {"CheckID": name, "Name": "health", "Status": "passing", "ServiceID": name},
    }


def weights(client: Client, first: int) -> float:
    """Git's weights are these, as gitsync writes them."""
    pairs = {"version=0.0.1/weight": first, "version=0.0.2/weight": 100 - first, "commit": _mark()}
    return client.put("/v1/txn", [_set(f"goat/{key}", value) for key, value in pairs.items()])


def _mark() -> dict[str, object]:
    return {"commit": "0" * 40, "generation": next(GENERATION)}


def _set(key: str, value: object) -> dict[str, object]:
    text = json.dumps(value).encode()
    return {"KV": {"Verb": "set", "Key": key, "Value": base64.b64encode(text).decode()}}


# HAProxy, asked on one kept connection


class Probe:
    """HAProxy's socket, asked by nobody's code but this. A reload ends the connection: it is made again."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "admin.sock")
        self._connection: socket.socket | None = None

    def ask(self, command: str) -> str:
        while True:
            try:
                return self._asked(command)
            except OSError:
                self._connection = None

    def _asked(self, command: str) -> str:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        with connection:
            connection.connect(self._path)
            connection.sendall(command.encode() + b"\n")
            reply = b""
            while chunk := connection.recv(1 << 16):
                reply += chunk
            return reply.decode()

    def until(self, command: str, right: Callable[[str], bool]) -> float:
        end = time.perf_counter() + CHANGED_S
        while not right(reply := self.ask(command)):
            if time.perf_counter() > end:
                sys.exit(f"not seen in {CHANGED_S} s: {command}: {reply[:300]}")
            time.sleep(0.0003)
        return time.perf_counter()


# The processes


@contextlib.contextmanager
def running(command: list[str], log: Path, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **more)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


class Place(msgspec.Struct):
    """Where everything of a run is."""

    folder: Path
    registry: int
    upstream: int
    router: int
    stats: int
    classic: int
    upstreams_folder: Path

    @property
    def milkrun(self) -> list[str]:
        return [sys.executable, "-m", "milkrun"]


def upstream_file(port: int) -> str:
    return (
        "global\n  maxconn 9000\ndefaults\n  mode http\n  timeout client 1m\n  timeout connect 1s\n"
        f"  timeout server 1m\nfrontend all\n  bind 0.0.0.0:{port}\n"
        "  http-request return status 200 content-type text/plain lf-string %[dst]\n"
    )


@contextlib.contextmanager
def site(folder: Path, size: int) -> Iterator[tuple[Place, Client]]:
    """A registry that has the instances, and what answers for them."""
    folder.mkdir()
    place = Place(folder, *free_ports(5), upstreams_folder=folder)
    (folder / "upstream.cfg").write_text(upstream_file(place.upstream))
    haproxy = binary.find().path
    registry = [*place.milkrun, "registry", "--acl", "open", "--http", f"127.0.0.1:{place.registry}"]
    with contextlib.ExitStack() as held:
        held.enter_context(
            running([haproxy, "-db", "-f", str(folder / "upstream.cfg")], folder / "upstream.log")
        )
        more = ["--data", str(folder / "registry"), "--host", "n1"]
        held.enter_context(running([*registry, *more], folder / "registry.log"))
        connected(place.registry)
        client = Client(place.registry)
        stands = {
            "listen": f"127.0.0.1:{place.router}",
            "stats": f"127.0.0.1:{place.stats}",
            "service": "goat",
        }
        published = {"mark": _mark(), "settings": {"name": "bench", "routers": {"lb": stands}}}
        client.put("/v1/txn", [_set("milkrun/environment", published)])
        for number in range(size):
            client.put("/v1/catalog/register", registered(f"goat-{number}", number, place.upstream))
        weights(client, 50)
        yield place, client


def connected(port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    sys.exit(f"nobody listens on {port}")


def answered(port: int) -> None:
    """A request has been answered with 200."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: goat\r\nConnection: close\r\n\r\n")
            if connection.recv(100).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.002)
    sys.exit(f"no answer on {port}")


@contextlib.contextmanager
def router(place: Place, size: int) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The router at work, and how long it took from nothing to an answered request."""
    folder = place.folder / "router"
    began = time.perf_counter()
    address = f"http://127.0.0.1:{place.registry}"
    command = [*place.milkrun, "router", "lb", "--registry", address, "--state", str(folder), "--host", "n1"]
    with running(command, place.folder / "router.log", cwd=place.folder) as process:
        answered(place.router)
        cold_s = time.perf_counter() - began
        probe = Probe(folder)
        probe.until("show servers state goat.all", lambda reply: reply.count(" goat.all ") == size)
        yield process, cold_s


@contextlib.contextmanager
def classic(place: Place, size: int) -> Iterator[None]:
    folder = place.folder / "classic"
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(render([], {}, place.classic))
    loop = str(Path(__file__).parent / "classic.py")
    command = [sys.executable, loop, str(folder), str(place.registry), str(place.classic)]
    with running(command, place.folder / "classic.log"):
        Probe(folder).until(f"get weight goat/goat-{size - 1}", lambda reply: reply[:1].isdigit())
        yield


# What is measured


class Side(msgspec.Struct):
    """One of the two, and what its runtime must say."""

    probe: Probe
    weight: Callable[[Probe, int], float]
    added: Callable[[Probe], float]
    removed: Callable[[Probe], float]


def ours(place: Place) -> Side:
    def shares(probe: Probe, first: int) -> float:
        return probe.until("show map goat.map", lambda reply: f" 0:{first * 100 - 1} " in reply)

    def takes_nothing(probe: Probe) -> float:
        state = probe.ask("show servers state goat.a")
        row = next((line.split() for line in state.splitlines() if f" {NEW} " in line), None)
        if row is None:
            return time.perf_counter()
        return probe.until(
            f"show stat goat.a 4 {row[2]}",
            lambda reply: f",{NEW}," not in reply or ",DRAIN" in reply or ",MAINT" in reply,
        )

    return Side(
        Probe(place.folder / "router"),
        shares,
        lambda probe: probe.until(f"get weight goat.a/{NEW}", lambda reply: reply[:1].isdigit()),
        takes_nothing,
    )


def theirs(place: Place) -> Side:
    return Side(
        Probe(place.folder / "classic"),
        lambda probe, first: probe.until(
            "get weight goat/goat-1", lambda reply: reply.startswith(f"{first} ")
        ),
        lambda probe: probe.until(f"get weight goat/{NEW}", lambda reply: reply[:1].isdigit()),
        lambda probe: probe.until(f"get weight goat/{NEW}", lambda reply: not reply[:1].isdigit()),
    )


def changes(place: Place, client: Client, side: Side, size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of `rounds` changes of each kind, with a pause before each."""
    found: dict[str, list[float]] = {"weight": [], "add": [], "remove": []}
    probe = side.probe
    pause = 0.1 + size / 5000
    for number in range(rounds):
        share = 20 + number % 60
        time.sleep(pause)
        acknowledged = weights(client, share)
        found["weight"].append((side.weight(probe, share) - acknowledged) * 1000)
        time.sleep(pause)
        acknowledged = client.put(
            "/v1/catalog/register", registered(NEW, size + 1 - size % 2, place.upstream)
        )
        found["add"].append((side.added(probe) - acknowledged) * 1000)
        time.sleep(pause)
        acknowledged = client.put("/v1/catalog/deregister", {"Node": "node-1", "ServiceID": NEW})
        found["remove"].append((side.removed(probe) - acknowledged) * 1000)
    return found


def used(pid: int) -> tuple[float, float]:
    """A process's processor seconds so far, and its memory in MB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), memory


def busy(place: Place, client: Client, process: subprocess.Popen[bytes], size: int) -> dict[str, float]:
    """What the router takes of a core, and its memory, under 100 changes a second."""
    seconds = 10
    before, _ = used(process.pid)
    began = time.perf_counter()
    for number in range(100 * seconds):
        time.sleep(max(0.0, began + number / 100 - time.perf_counter()))
        which = number % size
        client.put(
            "/v1/catalog/register", registered(f"goat-{which}", which, place.upstream, 1 + number % 200)
        )
    took = time.perf_counter() - began
    after, memory = used(process.pid)
    return {"changes_per_s": 100 * seconds / took, "of_a_core": (after - before) / took, "memory_mb": memory}


def idle(process: subprocess.Popen[bytes], haproxy: list[int]) -> dict[str, float]:
    """What the router and HAProxy take of a core when nothing changes."""
    before = used(process.pid)[0], sum(used(pid)[0] for pid in haproxy)
    time.sleep(5)
    after = used(process.pid)[0], sum(used(pid)[0] for pid in haproxy)
    return {"router_idle": (after[0] - before[0]) / 5, "haproxy_idle": (after[1] - before[1]) / 5}


def haproxies(folder: Path) -> list[int]:
    """The processes of the HAProxy whose working folder this is."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cwd").resolve() == folder.resolve():
                found.append(int(entry.name))
    return found


def measure(folder: Path, size: int, rounds: int, *, peer: bool) -> tuple[list[Row], dict[str, float]]:
    rows = [Row(what, size) for what in ("weight", "add", "remove")]
    with site(folder, size) as (place, client):
        with router(place, size) as (process, cold_s):
            settle = 1 + size / 2000
            time.sleep(settle)
            figures = {"instances": size, "cold_start_s": cold_s}
            figures |= idle(process, haproxies(place.folder / "router"))
            before, _ = used(process.pid)
            found = changes(place, client, ours(place), size, rounds)
            figures["cpu_ms_per_change"] = (used(process.pid)[0] - before) / rounds / len(rows) * 1000
            for row in rows:
                row.ours_ms = found[row.what]
            figures |= busy(place, client, process, size)
        if peer:
            with classic(place, size):
                time.sleep(settle)
                found = changes(place, client, theirs(place), size, max(5, rounds // 5))
            for row in rows:
                row.classic_ms = found[row.what]
    return rows, figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--no-peer", action="store_true", help="without the classic loop")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[Row] = []
    costs = []
    for size in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            more, figures = measure(Path(folder) / "site", size, given.rounds, peer=not given.no_peer)
        rows += more
        costs.append(figures)
        if not given.json:
            for row in more:
                print(row.line(), flush=True)
            print("  ", {name: round(value, 2) for name, value in figures.items()}, flush=True)
    if given.json:
        print(json.dumps({"schema_version": 1, "rows": msgspec.to_builtins(rows), "costs": costs}))


if __name__ == "__main__":
    main()
