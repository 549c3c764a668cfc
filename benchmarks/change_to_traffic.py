"""How long a change takes until users see it: medians and p99 on this machine, from a dairy farm that is up.

    .venv/bin/python benchmarks/change_to_traffic.py [--rounds N] [--json]

- commit to traffic: from before `git update-ref` moves the branch to the first answer by the new version.
- KV to traffic: from before the registry gets the weights' transaction (gitsync is stopped meanwhile) to the
  first answer by the new version.
- kill to last routed: from `kill -9` of an instance to the last request that HAProxy sent its way, under 500
  requests a second; what HAProxy sent there it sent again elsewhere, and the ledger says that none was lost.

The client asks on two connections with a millisecond's pause after each answer, so the resolution is about one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import msgspec
from farm import Farm

from milkrun.consul import Registry, keys
from milkrun.consul.client import kv_set
from milkrun.load import generator
from milkrun.model import AgentReport, CommitId, CommitMark, ServiceName, UnitReport, VersionName
from milkrun.router.haproxy.socket import RuntimeSocket
from milkrun.up.record import load as record

GOAT = ServiceName("goat")
OLD, NEW = VersionName("0.0.1"), VersionName("0.0.2")


class Asking:
    """A client that remembers when each version answered last and first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.version = ""
        self._first = asyncio.Event()
        self._wanted = ""
        self._at = 0.0

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while True:
            writer.write(b"GET /milk HTTP/1.1\r\nHost: goat\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            version = json.loads(await reader.readexactly(length))["goat"]["version"]
            if version == self._wanted and not self._first.is_set():
                self._at = time.perf_counter()
                self._first.set()
            await asyncio.sleep(0.001)

    def expect(self, version: str) -> None:
        self._wanted = version
        self._first.clear()

    async def first(self) -> float:
        async with asyncio.timeout(30):
            await self._first.wait()
        return self._at


def deploy_text(old: int, new: int) -> str:
    wish = {OLD: {"weight": old, "replicas": 2}, NEW: {"weight": new, "replicas": 1}}
    return json.dumps({f"version={name}": fields for name, fields in wish.items()}, indent=2)


def prepared(farm: Farm, text: str) -> str:
    """A commit with this deploy file, made without moving the branch."""
    (farm.path / "deploy" / "goat.json").write_text(text)
    farm.git("add", "deploy/goat.json")
    parent = farm.git("rev-parse", "main")
    return farm.git("commit-tree", farm.git("write-tree"), "-p", parent, "-m", "weights")


async def commit_to_traffic(farm: Farm, asking: Asking, rounds: int) -> list[float]:
    found = []
    for number in range(rounds):
        old, new, expected = (0, 100, NEW) if number % 2 == 0 else (100, 0, OLD)
        commit = await asyncio.to_thread(prepared, farm, deploy_text(old, new))
        await asyncio.sleep(0.2)  # not just after the last change
        asking.expect(expected)
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            "git", "update-ref", "refs/heads/main", commit, cwd=farm.path
        )
        found.append(await asking.first() - began)
        await process.wait()
    return found


async def kv_to_traffic(farm: Farm, registry: Registry, asking: Asking, rounds: int) -> list[float]:
    known = record(farm.folder)
    assert known
    gitsync = known.parts["gitsync"].identity.pid
    os.kill(gitsync, signal.SIGSTOP)
    found = []
    try:
        pair = await registry.get(keys.commit(GOAT))
        assert pair
        generation = msgspec.json.decode(pair.data, type=CommitMark).generation
        for number in range(rounds):
            old, new, expected = (0, 100, NEW) if number % 2 == 0 else (100, 0, OLD)
            mark = CommitMark(commit=CommitId(f"{number:040x}"), generation=generation + 1 + number)
            operations = [
                kv_set(keys.weight(GOAT, OLD), str(old).encode()),
                kv_set(keys.weight(GOAT, NEW), str(new).encode()),
                kv_set(keys.commit(GOAT), msgspec.json.encode(mark)),
            ]
            await asyncio.sleep(0.2)
            asking.expect(expected)
            began = time.perf_counter()
            await registry.txn(operations)
            found.append(await asking.first() - began)
    finally:
        os.kill(gitsync, signal.SIGCONT)
    return found


async def kill_to_last_routed(farm: Farm, registry: Registry, rounds: int) -> tuple[list[float], str]:
    socket = RuntimeSocket(farm.folder.router("lb-goat"), "admin.sock")
    url = f"http://127.0.0.1:{farm.goats}/milk"
    found = []
    loading = asyncio.ensure_future(generator.run(url, rate=500, duration_s=3600))  # noqa: TID251
    for _ in range(rounds):
        unit = await healthy_unit(registry)
        os.kill(unit.pid, signal.SIGKILL)
        began = last = time.perf_counter()
        sent = await sessions(socket, unit.instance)
        while time.perf_counter() - began < 0.5:
            now = await sessions(socket, unit.instance)
            if now > sent:
                sent, last = now, time.perf_counter()
        found.append(last - began)
        await restarted(registry, unit)
    loading.cancel()
    figures = await loading
    return (
        found,
        f"{figures.sent:,} requests meanwhile, {figures.failed} failed, {figures.duplicated} duplicated",
    )


async def sessions(socket: RuntimeSocket, instance: str) -> int:
    """How many requests HAProxy has sent towards the instance so far."""
    reply = await socket.ask("show stat -1 4 -1")
    columns = reply.splitlines()[0].split(",")
    total = 0
    for line in reply.splitlines()[1:]:
        row = dict(zip(columns, line.split(","), strict=False))
        if row.get("svname") == instance:
            total += int(row["stot"] or 0) + int(row["wretr"] or 0) + int(row["wredis"] or 0)
    return total


async def units(registry: Registry) -> list[UnitReport]:
    pairs = await registry.entries(keys.AGENT_REPORTS)
    return [unit for pair in pairs for unit in msgspec.json.decode(pair.data, type=AgentReport).units]


async def healthy_unit(registry: Registry) -> UnitReport:
    goats = [unit for unit in await units(registry) if unit.service == GOAT and unit.version == OLD]
    return min(goats, key=lambda unit: unit.restarts)


async def restarted(registry: Registry, before: UnitReport) -> None:
    async with asyncio.timeout(60):
        while True:
            for unit in await units(registry):
                if (
                    unit.instance == before.instance
                    and unit.restarts > before.restarts
                    and unit.state == "healthy"
                ):
                    return
            await asyncio.sleep(0.05)


def row(name: str, seconds: list[float]) -> dict[str, float | str]:
    ordered = sorted(value * 1000 for value in seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    return {
        "what": name,
        "rounds": len(ordered),
        "median_ms": round(statistics.median(ordered), 1),
        "p99_ms": round(p99, 1),
    }


async def measure(farm: Farm, rounds: int) -> tuple[list[dict[str, float | str]], str]:
    async with (
        Registry(farm.address) as registry,
        asyncio.TaskGroup() as tasks,
    ):
        asking = Asking(farm.goats)
        clients = [tasks.create_task(asking.run()) for _ in range(2)]
        commits = await commit_to_traffic(farm, asking, rounds)
        writes = await kv_to_traffic(farm, registry, asking, rounds)
        for client in clients:
            client.cancel()
        commit = await asyncio.to_thread(prepared, farm, deploy_text(80, 20))
        for number in range(rounds + 1):  # past the generations that were written by hand
            commit = farm.git("commit-tree", f"{commit}^{{tree}}", "-p", commit, "-m", f"on {number}")
        farm.git("update-ref", "refs/heads/main", commit)
        await asyncio.sleep(1)
        kills, ledger = await kill_to_last_routed(farm, registry, max(10, rounds // 5))
    rows = [
        row("git commit to traffic", commits),
        row("KV write to traffic", writes),
        row("kill -9 to last routed request", kills),
    ]
    return rows, ledger


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        farm = Farm(Path(folder) / "farm")
        try:
            up = farm.up()
            rows, ledger = asyncio.run(measure(farm, given.rounds))
            up.send_signal(signal.SIGTERM)
            up.wait(60)
        finally:
            farm.end()
    if given.json:
        print(json.dumps({"schema_version": 1, "rows": rows, "ledger": ledger}))
        return
    print(f"{'':34}{'rounds':>8}{'median':>12}{'p99':>12}")
    for line in rows:
        print(f"{line['what']:34}{line['rounds']:>8}{line['median_ms']:>9} ms{line['p99_ms']:>9} ms")
    print(ledger)


if __name__ == "__main__":
    main()
