"""Shares are exact: each within a chi-square bound on 100,000 requests, whatever the instance counts."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from ports import free_port

from milkrun.model import InstanceId
from milkrun.router.desired import Server
from milkrun.router.haproxy import binary

REQUESTS = 100_000
CONNECTIONS = 8
BATCH = 100
# One degree of freedom: passed by chance with p = 1e-6; 0.2 % in place of 0.1 % gives about 100.
CHI_SQUARE = 24.0


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory):
    """Twenty instances that are quick enough not to matter: frontends of another HAProxy. Ports by version."""
    folder = tmp_path_factory.mktemp("upstreams")
    ports = {version: [free_port() for _ in range(10)] for version in ("v1", "v2")}
    lines = ["defaults", "  mode http", "  timeout client 1m", "  timeout connect 1s", "  timeout server 1m"]
    for version, numbers in ports.items():
        for port in numbers:
            lines += [f"frontend {version}.{port}", f"  bind 127.0.0.1:{port}"]
            lines += [f"  http-request return status 200 content-type text/plain string {version}"]
    (folder / "haproxy.cfg").write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([binary.find().path, "-db", "-f", str(folder / "haproxy.cfg")])
    yield ports
    process.kill()
    process.wait()


async def count(address: tuple[str, int]) -> dict[str, int]:
    """Who answered each of 100,000 requests."""
    found = {"v1": 0, "v2": 0}

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        request = b"GET / HTTP/1.1\r\nHost: goat\r\n\r\n"
        for _ in range(REQUESTS // CONNECTIONS // BATCH):
            writer.write(request * BATCH)
            answers = 0
            while answers < BATCH:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                found[(await reader.readexactly(2)).decode()] += 1
                answers += 1
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(client())
    return found


@pytest.mark.parametrize(
    ("shares", "instances"),
    [
        ((9_000, 1_000), (1, 1)),
        ((9_000, 1_000), (1, 10)),
        ((9_900, 100), (10, 1)),
        ((9_900, 100), (3, 7)),
        ((9_990, 10), (1, 10)),
        ((9_990, 10), (10, 2)),
    ],
)
async def test_shares_are_exact_whatever_the_instance_counts(site, make_state, upstreams, shares, instances):
    versions = {
        version: [
            Server(id=InstanceId(f"{version}-{port}"), address="127.0.0.1", port=port)
            for port in upstreams[version][:amount]
        ]
        for version, amount in zip(("v1", "v2"), instances, strict=True)
    }
    await site.plane.start(make_state({}))
    await site.converge(make_state(dict(zip(("v1", "v2"), shares, strict=True)), **versions))

    found = await count(site.listen)

    total = sum(found.values())
    assert total == REQUESTS
    expected = {version: total * share / 10_000 for version, share in zip(("v1", "v2"), shares, strict=True)}
    statistic = sum((found[version] - expected[version]) ** 2 / expected[version] for version in found)
    assert statistic < CHI_SQUARE, found
    assert site.plane.reloads == 0
