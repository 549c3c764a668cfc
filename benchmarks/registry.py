"""The registry against a real Consul, in one run: rates, wake-up times and memory, as medians and ratios.

    .venv/bin/python benchmarks/registry.py [--rounds N] [--seconds S] [--only TEXT] [--all-cores] [--json]

Both keep their data on the same disk and sync every write. Each server runs on one core and the load client on
another one (`--all-cores` leaves the choice to the system: Consul can use more than one). The rounds of the two
alternate, so that a busy moment of the machine hits both. Reads are asked by `wrk` where it is installed, else,
as all writes, by the lean client below; the client's own share of its core is in the table: near 100 % means
that the client was the bottleneck, not the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import msgspec
import uvloop
from ports import free_ports

ROOT = Path(__file__).parent.parent
START_S = 20.0
WATCHED = "bench/watched"
HUNDRED = "bench-hundred"

Requests = Callable[[], bytes]
"""Gives the next request's bytes."""


class Row(msgspec.Struct):
    """One line of the table. `unit` is `1/s` (more is better), `ms` or `MB` (less is better)."""

    what: str
    unit: str
    aim: float
    """What the ratio should reach: ours over Consul's for rates, Consul's over ours for the others."""
    client: str
    ours: list[float] = []
    consul: list[float] = []
    ours_cpu_us: list[float] = []
    consul_cpu_us: list[float] = []
    """The server's own processor time for one answer: it hardly changes when others use the machine."""
    client_busy: list[float] = []

    @property
    def ratio(self) -> float:
        ours, consul = statistics.median(self.ours), statistics.median(self.consul)
        return ours / consul if self.unit == "1/s" else consul / ours


# The servers


class Server(msgspec.Struct):
    """One that runs, and where it answers."""

    name: str
    port: int
    pid: int


@contextlib.contextmanager
def servers(folder: Path, cores: tuple[set[int], set[int]]) -> Iterator[dict[str, Server]]:
    """Both serve meanwhile, with empty data."""
    os.sched_setaffinity(0, cores[0])  # what starts now stays there
    with contextlib.ExitStack() as held:
        found = {}
        for name, make in (("ours", _ours), ("consul", _consul)):
            port, command = make(folder / name)
            log = held.enter_context((folder / f"{name}.log").open("w"))
            process = held.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
            held.callback(process.kill)
            found[name] = Server(name, port, process.pid)
        os.sched_setaffinity(0, cores[1])
        for server in found.values():
            _wait_until_it_serves(server, folder / f"{server.name}.log")
        yield found


def _ours(folder: Path) -> tuple[int, list[str]]:
    (port,) = free_ports(1)
    milkrun = str(Path(sys.executable).parent / "milkrun")
    return port, [
        milkrun,
        "registry",
        *("--acl", "open"),
        "--http",
        f"127.0.0.1:{port}",
        "--data",
        str(folder),
        "--host",
        "n1",
    ]


def _consul(folder: Path) -> tuple[int, list[str]]:
    binary = os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")
    if not Path(binary).is_file():
        sys.exit("this compares with a real Consul, which is not here: .ci/parts/consul.sh gets it")
    folder.mkdir()
    ports = dict(zip(("http", "server", "serf_lan"), free_ports(3), strict=True))
    settings = {
        "node_name": "n1",
        "server": True,
        "bootstrap_expect": 1,
        "ports": {**ports, "dns": -1, "serf_wan": -1, "grpc": -1},
        "disable_update_check": True,
        "limits": {"http_max_conns_per_client": 10_000},
        "data_dir": str(folder / "data"),
    }
    (folder / "consul.json").write_text(json.dumps(settings))
    command = [binary, "agent", "-bind", "127.0.0.1", "-config-file", str(folder / "consul.json")]
    return ports["http"], [*command, "-log-level", "err"]


def _wait_until_it_serves(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(ask(server, "GET", "/v1/health/node/n1")):
                return
        time.sleep(0.1)
    sys.exit(f"{server.name} did not start:\n{log.read_text()[-2000:]}")


def ask(server: Server, method: str, path: str, body: object = None) -> bytes:
    url = f"http://127.0.0.1:{server.port}{path}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as reply:
        found: bytes = reply.read()
    return found


# The lean client


class Client(asyncio.Protocol):
    """One connection that sends the next request when the last one is answered."""

    def __init__(self, requests: Requests, answered: Callable[[], bool]) -> None:
        self._requests = requests
        self._answered = answered
        self._data = b""
        self.index = 0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def ask(self) -> None:
        self.transport.write(self._requests())

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return
        length = data.lower().find(b"content-length: ", 0, head)
        if len(data) < head + 4 + int(data[length + 16 : data.find(b"\r\n", length)]):
            return
        if not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"refused: {data[:500]!r}")
        self._data = b""
        at = data.lower().find(b"x-consul-index: ", 0, head)
        self.index = int(data[at + 16 : data.find(b"\r\n", at)]) if at > 0 else 0
        if self._answered():
            self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def connect(
    server: Server, count: int, requests: Requests, answered: Callable[[], bool]
) -> list[Client]:
    loop = asyncio.get_running_loop()
    return [
        (await loop.create_connection(lambda: Client(requests, answered), "127.0.0.1", server.port))[1]
        for _ in range(count)
    ]


def request(method: str, path: str, body: bytes = b"") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


async def rate(server: Server, clients: int, requests: Requests, seconds: float) -> tuple[float, float]:
    """Answers a second, and the share of a core that this client used."""
    count = 0
    going = True

    def answered() -> bool:
        nonlocal count
        count += 1
        return going

    connections = await connect(server, clients, requests, answered)
    began, busy = time.perf_counter(), time.process_time()
    for each in connections:
        each.ask()
    await asyncio.sleep(seconds)
    found = count / (time.perf_counter() - began)
    used = (time.process_time() - busy) / (time.perf_counter() - began)
    going = False
    await asyncio.sleep(0.2)
    for each in connections:
        each.transport.close()
    return found, used


def wrk_rate(server: Server, clients: int, path: str, seconds: float) -> tuple[float, float]:
    url = f"http://127.0.0.1:{server.port}{path}"
    before = os.times()
    began = time.perf_counter()
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = os.times()
    if "Non-2xx" in text:
        sys.exit(f"{server.name} refused {path}:\n{text}")
    line = next(each for each in text.splitlines() if each.startswith("Requests/sec:"))
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return float(line.split()[1]), used / (time.perf_counter() - began)


async def wake_up(server: Server, watchers: int, times: int) -> float:
    """The median time, in ms, from the write to the last watcher's answer."""
    path = f"/v1/kv/{WATCHED}"
    ask(server, "PUT", path, f"start {time.time_ns()}")
    left = watchers
    everyone = asyncio.Event()

    def answered() -> bool:
        nonlocal left
        left -= 1
        if not left:
            everyone.set()
        return False

    index = 0
    connections = await connect(
        server, watchers, lambda: request("GET", f"{path}?index={index}&wait=60s"), answered
    )
    (writer,) = await connect(server, 1, lambda: request("PUT", path, b"%d" % time.time_ns()), lambda: False)
    found = []
    for _ in range(times + 3):
        everyone.clear()
        left = watchers
        for each in connections:
            each.ask()
        if index:
            await asyncio.sleep(0.1 + watchers / 5000)
            began = time.perf_counter()
            writer.ask()
        async with asyncio.timeout(30):
            await everyone.wait()
        if index:
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.02)
        index = connections[0].index
    for each in [*connections, writer]:
        each.transport.close()
    return statistics.median(found[2:])


# What is asked


_number = itertools.count(time.time_ns())


def put() -> bytes:
    number = next(_number)
    return request("PUT", f"/v1/kv/bench/{number % 10_000}", b"value %d" % number)


def register() -> bytes:
    number = next(_number)
    body = {"ID": f"bench-{number % 500}", "Name": f"bench-{number % 20}", "Port": number % 60_000 + 1}
    return request("PUT", "/v1/agent/service/register", json.dumps(body).encode())


def instance(service: str, number: int) -> dict[str, object]:
    return {
        "Node": f"node-{number % 50}",
        "Address": f"10.0.0.{number % 50}",
        "Service": {
            "ID": f"{service}-{number}",
            "Service": service,
            "Tags": ["version=0.0.1"],
            "Meta": {"version": "0.0.1"},
            "Address": f"10.0.0.{number % 50}",
            "Port": 8000 + number,
        },
        "Check": {
            "CheckID": f"{service}-{number}",
            "Name": "health",
            "Status": "passing",
            "ServiceID": f"{service}-{number}",
            "Output": "GET /health: 200",
        },
    }


async def fill(server: Server, instances: int) -> None:
    """So many instances are in the catalog, 100 a service."""
    numbers = iter(range(instances))
    left = instances
    done = asyncio.Event()

    def following() -> bytes:
        number = next(numbers)
        return request(
            "PUT", "/v1/catalog/register", json.dumps(instance(f"s{number // 100}", number)).encode()
        )

    def answered() -> bool:
        nonlocal left
        left -= 1
        if not left:
            done.set()
        return left >= 64

    connections = await connect(server, 64, following, answered)
    for each in connections:
        each.ask()
    await done.wait()
    for each in connections:
        each.transport.close()


def memory_mb(server: Server) -> float:
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def processor_s(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The run


async def read(server: Server, row: Row, clients: int, path: str, seconds: float) -> float:
    raw = request("GET", path)
    if row.client == "wrk":
        run = asyncio.to_thread(wrk_rate, server, clients, path, seconds)
    else:
        run = rate(server, clients, lambda: raw, seconds)
    return await timed(server, row, run, seconds)


async def write(server: Server, row: Row, clients: int, requests: Requests, seconds: float) -> float:
    return await timed(server, row, rate(server, clients, requests, seconds), seconds)


async def timed(server: Server, row: Row, run: Awaitable[tuple[float, float]], seconds: float) -> float:
    before = processor_s(server)
    found, busy = await run
    used_us = (processor_s(server) - before) / (found * seconds) * 1e6
    (row.ours_cpu_us if server.name == "ours" else row.consul_cpu_us).append(used_us)
    row.client_busy.append(busy)
    return found


async def measure(both: dict[str, Server], given: argparse.Namespace) -> list[Row]:
    reader = "wrk" if shutil.which("wrk") else "lean"
    seconds = given.seconds
    hundred = f"/v1/health/service/{HUNDRED}"
    plan: list[tuple[Row, Callable[[Server, Row], Awaitable[float]]]] = [
        (
            Row("KV get, 1 client", "1/s", 1.5, reader),
            lambda s, r: read(s, r, 1, "/v1/kv/bench/got", seconds),
        ),
        (
            Row("KV get, 64 clients", "1/s", 1.5, reader),
            lambda s, r: read(s, r, 64, "/v1/kv/bench/got", seconds),
        ),
        (Row("KV put, 1 client", "1/s", 1.0, "lean"), lambda s, r: write(s, r, 1, put, seconds)),
        (Row("KV put, 64 clients", "1/s", 10, "lean"), lambda s, r: write(s, r, 64, put, seconds)),
        (Row("register, 64 clients", "1/s", 10, "lean"), lambda s, r: write(s, r, 64, register, seconds)),
        (Row("health of 100, 64 clients", "1/s", 20, reader), lambda s, r: read(s, r, 64, hundred, seconds)),
        (Row("wake-up, 1 watcher", "ms", 1, "lean"), lambda s, _: wake_up(s, 1, 20)),
        (Row("wake-up, last of 500", "ms", 1, "lean"), lambda s, _: wake_up(s, 500, 10)),
    ]
    plan = [(row, run) for row, run in plan if given.only in row.what]
    for server in both.values():
        ask(server, "PUT", "/v1/kv/bench/got", "x" * 64)
        for number in range(100):
            ask(server, "PUT", "/v1/catalog/register", instance(HUNDRED, number))
    for _ in range(given.rounds):
        for row, run in plan:
            for name, server in both.items():
                found = await run(server, row)
                (row.ours if name == "ours" else row.consul).append(found)
                await asyncio.sleep(0.2)
    return [row for row, _ in plan]


async def measure_memory(both: dict[str, Server], instances: int) -> Row:
    row = Row(f"memory, {instances:,} instances", "MB", 1, "lean")
    for name, server in both.items():
        await fill(server, instances)
        (row.ours if name == "ours" else row.consul).append(memory_mb(server))
    return row


def cores(*, everywhere: bool) -> tuple[set[int], set[int]]:
    """The servers' cores and the client's."""
    here = sorted(os.sched_getaffinity(0))
    if everywhere or len(here) < 2:
        return set(here), set(here)
    return {here[-1]}, {here[0]}


def show(rows: list[Row], where: str) -> None:
    print(f"{where}; all figures are medians; last: the client, and its share of a core")
    print(
        f"{'':28}{'ours':>10}{'Consul':>10}{'':6}{'ratio':>7}{'aim':>5}{'cpu us, ours':>14}{'Consul':>8}  client"
    )
    for row in rows:
        ours, consul = statistics.median(row.ours), statistics.median(row.consul)
        digits = 2 if row.unit == "ms" else 0
        line = f"{row.what:28}{ours:>10,.{digits}f}{consul:>10,.{digits}f} {row.unit:5}{row.ratio:>7.1f}{row.aim:>5g}"
        if row.client_busy:
            cpu = statistics.median(row.ours_cpu_us), statistics.median(row.consul_cpu_us)
            line += f"{cpu[0]:>14.1f}{cpu[1]:>8.1f}  {row.client} {statistics.median(row.client_busy):.0%}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", default="", help="only the rows whose name has this text")
    parser.add_argument("--all-cores", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    placed = cores(everywhere=given.all_cores)
    rows = []
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        (Path(folder) / "rates").mkdir()
        with servers(Path(folder) / "rates", placed) as both:
            rows += uvloop.run(measure(both, given))
        if given.only in "memory":
            (Path(folder) / "memory").mkdir()
            with servers(Path(folder) / "memory", placed) as both:
                rows.append(uvloop.run(measure_memory(both, 10_000)))
    where = "all on the same cores" if placed[0] == placed[1] else "each server on one core"
    if given.json:
        shown = [{**msgspec.to_builtins(row), "ratio": round(row.ratio, 2)} for row in rows]
        print(json.dumps({"schema_version": 1, "where": where, "rows": shown}))
    else:
        show(rows, where)


if __name__ == "__main__":
    main()
