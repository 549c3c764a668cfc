"""The proof: the farm under load while everything changes and dies, and no request is lost.

`make soak` (MILKRUN_SOAK=1) does each change as often as its second number says, and other things ten times as often.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from farm import Farm
from ports import free_ports

from milkrun.consul import Registry, keys
from milkrun.load import generator
from milkrun.load.figures import Figures
from milkrun.model import AgentReport, RouterReport, ServiceName
from milkrun.up.record import load as record

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
RATE = 500
GOAT = ServiceName("goat")
WITHIN_S = 60.0


class Chaos:
    """A farm that is up, its registry's client, and a ledger folder that the goats write to."""

    def __init__(self, farm: Farm, registry: Registry) -> None:
        self.farm = farm
        self.registry = registry
        self.ledger = farm.path / ".milkrun" / "ledger"
        self.killed: set[str] = set()
        (self.spare,) = free_ports(1)

    def deploy(self, wish: dict[str, tuple[float, int]]) -> str:
        """Commits deploy/goat.json; returns the commit."""
        text = {f"version={name}": {"weight": w, "replicas": r} for name, (w, r) in wish.items()}
        (self.farm.path / "deploy" / "goat.json").write_text(json.dumps(text, indent=2))
        return self.farm.commit("goat")

    async def report(self) -> RouterReport | None:
        import msgspec

        pairs = await self.registry.entries(f"{keys.ROUTER_REPORTS}{GOAT}/")
        return msgspec.json.decode(pairs[0].data, type=RouterReport) if pairs else None

    async def units(self) -> list:
        import msgspec

        pairs = await self.registry.entries(keys.AGENT_REPORTS)
        units = [unit for pair in pairs for unit in msgspec.json.decode(pair.data, type=AgentReport).units]
        return [unit for unit in units if unit.service == GOAT]

    async def until(self, fact) -> None:
        """The fact comes true; the registry may be away meanwhile."""
        from milkrun.errors import MilkrunError

        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(MilkrunError):
                    if await fact():
                        return
                await asyncio.sleep(0.02)

    async def served(self, commit: str) -> None:
        async def fact():
            found = await self.report()
            return found is not None and found.commit == commit and not found.drift

        await self.until(fact)

    async def running(self, wish: dict[str, tuple[float, int]]) -> None:
        """Exactly these replicas are healthy, serve, and nothing else is left."""

        async def fact():
            found = await self.report()
            units = await self.units()
            healthy = Counter(unit.version for unit in units if unit.state == "healthy")
            serving = sum(seen.state == "serving" for seen in found.instances.values()) if found else -1
            wanted = {name: replicas for name, (_, replicas) in wish.items() if replicas}
            return healthy == wanted and len(units) == sum(wanted.values()) == serving

        await self.until(fact)

    def part(self, name: str) -> int:
        """The pid of a part, once `up` has written down one that lives."""
        found = record(self.farm.folder)
        assert found
        return found.parts[name].identity.pid

    async def kill_part(self, name: str) -> None:
        pid = self.part(name)
        os.kill(pid, signal.SIGKILL)

        async def back():
            found = record(self.farm.folder)
            return bool(found and name in found.parts and found.parts[name].identity.pid != pid)

        await self.until(back)

    async def kill_instance(self) -> None:
        units = [unit for unit in await self.units() if unit.state == "healthy"]
        unit = min(units, key=lambda unit: unit.restarts)
        self.killed.add(unit.instance)
        os.kill(unit.pid, signal.SIGKILL)

        async def back():
            now = {one.instance: one for one in await self.units()}.get(unit.instance)
            return bool(now and now.restarts > unit.restarts and now.state == "healthy")

        await self.until(back)

    def done_twice(self) -> dict[str, set[str]]:
        """Requests that two instances answered, neither of which was killed (then a GET is rightly sent again)."""
        seen: dict[str, set[str]] = {}
        for file in self.ledger.glob("*.log"):
            for request in file.read_text().split():
                seen.setdefault(request, set()).add(file.stem)
        return {request: names for request, names in seen.items() if len(names - self.killed) > 1}


@pytest.fixture
async def chaos(tmp_path: Path) -> AsyncIterator[Chaos]:
    farm = Farm(tmp_path / "farm")
    ledger = farm.path / ".milkrun" / "ledger"
    ledger.mkdir(parents=True)
    settings = farm.path / "services" / "goat.toml"
    settings.write_text(settings.read_text().replace("[env]\n", f'[env]\nDAIRY_LEDGER = "{ledger}"\n'))
    farm.commit("a ledger")
    process = await asyncio.to_thread(farm.up)
    try:
        async with Registry(farm.address) as registry:
            yield Chaos(farm, registry)
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 60)
        assert farm.processes() == {}
    finally:
        farm.end()


@contextlib.asynccontextmanager
async def load(chaos: Chaos, rate: float = RATE, url: str = "") -> AsyncIterator[list[Figures]]:
    """`milkrun load`'s own generator against the goats, keep-alive and one-shot, while the body runs."""
    results: list[Figures] = []
    url = url or f"http://127.0.0.1:{chaos.farm.goats}/milk"

    async def run() -> None:
        results.append(await generator.run(url, rate=rate, duration_s=3600, timeout_s=20))

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run())
        await asyncio.sleep(0.5)
        try:
            yield results
        finally:
            task.cancel()


def proved(chaos: Chaos, figures: Figures) -> None:
    print(
        f"\n{figures.sent:,} requests in {figures.elapsed_s:.0f} s: {figures.failed} failed,"
        f" {figures.duplicated} duplicated; p50 {figures.latency.p50_ms:.1f} ms, p99 {figures.latency.p99_ms:.0f} ms,"
        f" max {figures.latency.max_ms:.0f} ms"
    )
    assert figures.failures == {}
    assert figures.duplicated == 0
    assert figures.answered + figures.in_flight == figures.sent
    assert chaos.done_twice() == {}


BASE = {"0.0.1": (80.0, 2), "0.0.2": (20.0, 1)}


async def change_weights(chaos: Chaos, number: int) -> None:
    share = (number * 37) % 101
    await chaos.served(chaos.deploy({"0.0.1": (100 - share, 2), "0.0.2": (share, 1)}))


async def add_or_remove_an_instance(chaos: Chaos, number: int) -> None:
    grown = BASE | {"0.0.1": (80.0, 3 if number % 2 == 0 else 2)}
    await chaos.served(chaos.deploy(grown))
    await chaos.running(grown)


async def bring_a_new_version(chaos: Chaos, number: int) -> None:
    new = BASE | {f"1.0.{number}": (30.0, 1)}
    await chaos.served(chaos.deploy(new))
    await chaos.running(new)


async def kill_an_instance(chaos: Chaos, number: int) -> None:
    await chaos.kill_instance()


async def reload_haproxy(chaos: Chaos, number: int) -> None:
    """Another address for the stats page is what only a reload can change."""
    settings = chaos.farm.path / "milkrun.toml"
    ports = (chaos.farm.goats_stats, chaos.spare)
    old, new = (f'"127.0.0.1:{port}"' for port in (ports if number % 2 == 0 else ports[::-1]))
    settings.write_text(settings.read_text().replace(old, new))
    chaos.farm.commit("another stats page")

    async def stands_there():
        found = await chaos.report()
        return bool(found and f'"{found.stats.removeprefix("http://").removesuffix("/monitor")}"' == new)

    await chaos.until(stands_there)


@pytest.mark.timeout(7_200 if SOAK else 300)
@pytest.mark.parametrize(
    ("change", "times", "soak"),
    [
        (change_weights, 50, 2_000),
        (add_or_remove_an_instance, 20, 2_000),
        (bring_a_new_version, 20, 200),
        (kill_an_instance, 10, 500),
        (reload_haproxy, 20, 1_000),
    ],
)
async def test_no_change_and_no_kill_loses_a_request(chaos: Chaos, change, times: int, soak: int):
    times = soak if SOAK else times
    async with load(chaos, 50, chaos.farm.url) as through_farmers, load(chaos) as results:
        for number in range(times):
            await change(chaos, number)
    print(f"\n{change.__name__}: {times} times")
    proved(chaos, results[0])
    proved(chaos, through_farmers[0])
    report = await chaos.report()
    assert report
    assert report.reloads == (times if change is reload_haproxy else 0)


@pytest.mark.timeout(1_800 if SOAK else 300)
@pytest.mark.parametrize("part", ["registry", "gitsync", "agent", "lb-goat"])
async def test_killing_a_part_loses_nothing_and_it_carries_on(chaos: Chaos, part: str):
    haproxy = (chaos.farm.folder.router("lb-goat") / "process.json").read_bytes()
    pids = {unit.instance: unit.pid for unit in await chaos.units()}
    async with load(chaos) as results:
        for number in range(10 if SOAK else 3):
            await chaos.kill_part(part)
            moved = {"0.0.1": (50.0 + number, 2), "0.0.2": (50.0, 1)}
            await chaos.served(chaos.deploy(moved))
            await chaos.running(moved)
    await chaos.running(BASE)
    proved(chaos, results[0])
    report = await chaos.report()
    assert report
    assert report.reloads == 0
    assert (chaos.farm.folder.router("lb-goat") / "process.json").read_bytes() == haproxy, (
        "taken over, not restarted"
    )
    assert {unit.instance: unit.pid for unit in await chaos.units()} == pids, "adopted, not restarted"


async def test_traffic_flows_with_every_part_dead_also_over_haproxys_restart(chaos: Chaos):
    """I1: what is left is HAProxy, its folder and the instances."""
    from milkrun.router.haproxy import binary
    from milkrun.router.haproxy.process import Process

    up = chaos.farm.ups[0]
    parts = ["registry", "gitsync", "agent", "rollouts", "lb-goat", "lb-farmer"]
    pids = [chaos.part(name) for name in parts]
    async with load(chaos, 200) as results:
        up.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(2)
    proved(chaos, results[0])
    home = chaos.farm.folder.router("lb-goat")
    process = Process(home, binary.find())
    assert process.adopt()
    master = json.loads((home / "process.json").read_text())["pid"]
    os.killpg(master, signal.SIGKILL)
    async with asyncio.timeout(10):
        while process.running():
            await asyncio.sleep(0.01)
    await process.start([])

    async with load(chaos, 200) as results:
        await asyncio.sleep(2)

    proved(chaos, results[0])
    await asyncio.to_thread(up.wait)
    again = await asyncio.to_thread(chaos.farm.up)
    again.send_signal(signal.SIGTERM)
    await asyncio.to_thread(again.wait, 60)


async def test_a_registry_that_forgot_everything_costs_nothing_and_learns_it_again(chaos: Chaos):
    """I2: killed, its data deleted, started empty. Nobody believes the emptiness."""
    import shutil

    haproxy = (chaos.farm.folder.router("lb-goat") / "process.json").read_bytes()
    pids = {unit.instance: unit.pid for unit in await chaos.units()}
    async with load(chaos) as results:
        shutil.rmtree(chaos.farm.folder.registry)
        await chaos.kill_part("registry")
        moved = {"0.0.1": (50.0, 2), "0.0.2": (50.0, 1)}
        await chaos.served(chaos.deploy(moved))
        await chaos.running(moved)
    proved(chaos, results[0])
    assert (chaos.farm.folder.router("lb-goat") / "process.json").read_bytes() == haproxy
    assert {unit.instance: unit.pid for unit in await chaos.units()} == pids, "adopted, not restarted"


async def test_more_versions_than_lanes_come_and_go_over_a_reload(chaos: Chaos):
    """The former worker still has callers when the instances leave: nobody stops before it is done with them."""
    many = BASE | {f"2.0.{number}": (5.0, 1) for number in range(8)}
    async with load(chaos, 200) as results:
        await chaos.served(chaos.deploy(many))
        await chaos.running(many)
        await chaos.served(chaos.deploy(BASE))
        await chaos.running(BASE)
    proved(chaos, results[0])
    report = await chaos.report()
    assert report
    assert report.reloads == 1
