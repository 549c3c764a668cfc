"""What it costs HAProxy to choose a version in each way: processor time a request, on this machine.

    .venv/bin/python benchmarks/choice.py [--requests N] [--rounds N]

One HAProxy, driven as the router drives it, before two versions that are frontends of another one. In each round every
way has its turn with so many requests on 8 connections; processor time is HAProxy's own, as the kernel counts it. The
median of the ratios to `plain` of the same round is what the column says.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from alone import Alone
from ports import free_port

from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import RoutingState, Server
from milkrun.router.diff import diff
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.config import ADMIN_SOCKET
from milkrun.router.haproxy.socket import RuntimeSocket
from milkrun.router.override import cookie_name, cookie_value
from milkrun.router.placement import place
from milkrun.settings.service import TrafficSettings

V1, V2, V3 = (VersionName(f"0.0.{number}") for number in (1, 2, 3))
GOAT, KEY = ServiceName("goat"), b"k" * 64
TICKS = os.sysconf("SC_CLK_TCK")
TESTER = f"Cookie: {cookie_name(GOAT)}={cookie_value(GOAT, V2, int(time.time()) + 86_400, KEY)}\r\n"
WAYS = {
    "plain": (TrafficSettings(), ""),
    "sticky by cookie": (TrafficSettings(sticky="cookie:visitor"), "Cookie: visitor=a-certain-user\r\n"),
    "sticky by cookie, newcomers": (TrafficSettings(sticky="cookie:visitor"), ""),
    "sticky by header": (TrafficSettings(sticky="header:X-User"), "X-User: a-certain-user\r\n"),
    "sticky by address": (TrafficSettings(sticky="address"), ""),
    "override by cookie, users": (TrafficSettings(override="cookie"), ""),
    "override by cookie, testers": (TrafficSettings(override="cookie"), TESTER),
    "copies of 1 %": (TrafficSettings(mirror=V3, mirror_percent=1.0), ""),
    "copies of 10 %": (TrafficSettings(mirror=V3, mirror_percent=10.0), ""),
    "copies of all": (TrafficSettings(mirror=V3), ""),
}


def upstreams(folder: Path) -> tuple[subprocess.Popen[bytes], dict[VersionName, int]]:
    """Three versions that answer at once."""
    ports = {version: free_port() for version in (V1, V2, V3)}
    lines = ["defaults", "  mode http", "  timeout client 1m", "  timeout connect 1s", "  timeout server 1m"]
    for port in ports.values():
        lines += [f"frontend f{port}", f"  bind 127.0.0.1:{port}"]
        lines += ["  http-request return status 200 content-type text/plain string hello"]
    (folder / "upstreams.cfg").write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([binary.find().path, "-db", "-f", str(folder / "upstreams.cfg")])
    return process, ports


def spent_s(pids: list[int]) -> float:
    """The processor time of these processes."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS


async def load(address: tuple[str, int], requests: int, header: str) -> None:
    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        request = f"GET / HTTP/1.1\r\nHost: goat\r\n{header}\r\n".encode()
        for _ in range(requests // 8 // 20):
            writer.write(request * 20)
            for _ in range(20):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                await reader.readexactly(5)
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(client())


async def one(folder: Path, way: str, ports: dict[VersionName, int], requests: int) -> float:
    """Microseconds of HAProxy's processor time a request."""
    traffic, header = WAYS[way]
    folder.mkdir()
    listen = ("127.0.0.1", free_port())
    stats = ("127.0.0.1", free_port())
    plane = Alone(folder, GOAT, listen=listen, stats=stats, traffic=traffic, override_key=KEY)
    shares = {V1: 9_000, V2: 1_000}
    wanted = RoutingState(
        shares=shares,
        placement=place((), shares),
        versions={
            version: {f"i{port}": Server(id=InstanceId(f"i{port}"), address="127.0.0.1", port=port)}
            for version, port in ports.items()
        },
    )
    await plane.start(RoutingState())
    try:
        for _ in range(4):
            await plane.apply(diff(await plane.observe(), wanted), wanted)
        info = await RuntimeSocket(folder, ADMIN_SOCKET).ask("show info")
        pids = [int(line.removeprefix("Pid: ")) for line in info.splitlines() if line.startswith("Pid: ")]
        await load(listen, 800, header)
        before = spent_s(pids)
        await load(listen, requests, header)
        return (spent_s(pids) - before) / requests * 1e6
    finally:
        await plane.stop()


async def measure(requests: int, rounds: int) -> None:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        process, ports = upstreams(folder)
        try:
            for number in range(rounds):
                for way in WAYS:
                    spent = await one(folder / f"{number}-{len(found[way])}-{way}", way, ports, requests)
                    found[way].append(spent)
        finally:
            process.kill()
            process.wait()
    print(f"{'HAProxy ' + binary.find().version_text:32}{'us/request':>12}{'to plain':>10}")
    for way, spent in found.items():
        ratio = statistics.median(a / b for a, b in zip(spent, found["plain"], strict=True))
        print(f"{way:32}{statistics.median(spent):>12.1f}{ratio:>10.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(measure(given.requests, given.rounds))
