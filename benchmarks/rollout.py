"""How long a blue-green deploy takes from end to end, against what cannot be avoided, measured in the same run.

    .venv/bin/python benchmarks/rollout.py [--sizes 1,10,50] [--rounds N] [--json]

- deploy: from before somebody asks for it to its receipt: commits, gitsync, slots, starts, probes, smoke, the switch,
  drain, stop. Real farm, bake 0, no traffic but the probes.
- floor: the same instances started all at once by this script, each until it answered its health check `rise` times,
  an interval apart; then SIGTERM to all of them until the last one is gone. No milkrun, no git, no registry.

Both by turns, the medians of the rounds. The aim is a ratio of at most 1.2.
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

from farm import Farm
from ports import free_ports
from rollout_farm import FILE, GOAT, goats_alone, plan_of, shelf_of, until

from milkrun.cli.rollout_ask import ask, begin
from milkrun.consul import Registry
from milkrun.rollout.state import State

INTERVAL_S, RISE = 0.2, 2
PROBE_S = 0.02
PORTS = 250
WITHIN_S = 300.0

SETTINGS = f"""command = ["{{{{python}}}}", "apps/goat.py"]

[env]
DAIRY_LEDGER = "{{ledger}}"

[health]
interval_s = {INTERVAL_S}
rise = {RISE}

[rollout]
strategy = "blue-green"
bake_s = 0.0
"""


def prepared(folder: Path) -> Farm:
    """A farm with room for both versions of the largest size."""
    farm = goats_alone(folder / "farm", SETTINGS)
    text = (farm.path / "milkrun.toml").read_text()
    first = int(text.partition("ports = [")[2].partition(",")[0])
    first = min(first, 32_000 - PORTS)
    head, _, rest = text.partition("ports = [")
    text = f"{head}ports = [{first}, {first + PORTS}]{rest.partition(']')[2]}"
    (farm.path / "milkrun.toml").write_text(text)
    farm.commit("Room for all")
    return farm


async def resized(farm: Farm, registry: Registry, size: int) -> None:
    """So many instances serve."""
    wish = json.loads((farm.path / FILE).read_text())
    (version,) = wish
    wish[version]["replicas"] = size
    (farm.path / FILE).write_text(json.dumps(wish))
    farm.commit(f"{size} goats")

    async def healthy() -> bool:
        found = await registry.health(GOAT)
        return len(found[0]) == size and all(
            check.status == "passing" for entry in found[0] for check in entry.checks
        )

    await until(healthy, WITHIN_S)


async def deployed(farm: Farm, registry: Registry, version: str) -> tuple[float, State]:
    """The seconds from end to end, and the rollout as it ended."""
    plan = await plan_of(farm, version, "blue-green")
    wanted = begin(plan, strategy="blue-green", replicas=None, digest=plan.digest, reason="")
    began = time.time()
    await ask(farm.address, GOAT, wanted)

    async def over() -> bool:
        state = (await shelf_of(registry)).state
        return state is not None and state.plan.version == version and state.over

    await until(over, WITHIN_S)
    state = (await shelf_of(registry)).state
    assert state
    assert state.phase == "done", state.reason
    return state.ended - began, state


async def floor(farm: Farm, size: int) -> tuple[float, float]:
    """The seconds until the last of so many instances is healthy, and those until the last one is gone."""
    began = time.perf_counter()
    running = []
    for port in free_ports(size):
        name = {"SERVICE": "goat", "VERSION": "0", "INSTANCE": f"floor-{port}", "ADDRESS": "127.0.0.1"}
        variables = {f"MILKRUN_{key}": value for key, value in name.items()}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "apps/goat.py",
            cwd=farm.path,
            env=farm.environment | variables | {"MILKRUN_PORT": str(port)},
            stdout=asyncio.subprocess.DEVNULL,
        )
        running.append((process, port))
    async with asyncio.TaskGroup() as tasks:
        for _, port in running:
            tasks.create_task(healthy(port))
    healthy_s = time.perf_counter() - began
    began = time.perf_counter()
    for process, _ in running:
        process.send_signal(signal.SIGTERM)
    for process, _ in running:
        await process.wait()
    return healthy_s, time.perf_counter() - began


async def healthy(port: int) -> None:
    """The instance has answered as often as it takes."""
    good = 0
    while good < RISE:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: goat\r\nConnection: close\r\n\r\n")
            good += (await reader.readline()).split()[1:2] == [b"200"]
            writer.close()
        except OSError:
            await asyncio.sleep(PROBE_S)
            continue
        if good < RISE:
            await asyncio.sleep(INTERVAL_S)


async def measure(farm: Farm, sizes: list[int], rounds: int) -> list[dict[str, float]]:
    rows = []
    number = 1
    async with Registry(farm.address) as registry:
        for size in sizes:
            await resized(farm, registry, size)
            ours, floors, commits = [], [], []
            for _ in range(rounds):
                floors.append(await floor(farm, size))
                number += 1
                took_s, state = await deployed(farm, registry, f"1.0.{number}")
                farm.git("checkout", "--quiet", "HEAD", "--", FILE)
                ours.append(took_s)
                commits.append(state.slowest_s)
            whole = [start + stop for start, stop in floors]
            rows.append(
                {
                    "instances": size,
                    "rounds": rounds,
                    "deploy_s": round(statistics.median(ours), 2),
                    "floor_s": round(statistics.median(whole), 2),
                    "ratio": round(statistics.median(a / b for a, b in zip(ours, whole, strict=True)), 2),
                    "start_s": round(statistics.median(start for start, _ in floors), 2),
                    "stop_s": round(statistics.median(stop for _, stop in floors), 2),
                    "switch_s": round(statistics.median(commits), 3),
                }
            )
            print(rows[-1], file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="1,10,50")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        farm = prepared(Path(folder))
        try:
            up = farm.up()
            sizes = [int(size) for size in given.sizes.split(",")]
            rows = asyncio.run(measure(farm, sizes, given.rounds))
            up.send_signal(signal.SIGTERM)
            up.wait(120)
        finally:
            farm.end()
    if given.json:
        print(json.dumps({"schema_version": 1, "rows": rows, "load": os.getloadavg()}))
        return
    print("instances  rounds  deploy   floor  ratio  (floor: start and health, stop)  slowest switch")
    for row in rows:
        print(
            f"{row['instances']:9}{row['rounds']:8}{row['deploy_s']:7.2f}s{row['floor_s']:7.2f}s{row['ratio']:7.2f}"
            f"  {row['start_s']:.2f} s, {row['stop_s']:.2f} s{row['switch_s']:24.3f} s"
        )


if __name__ == "__main__":
    main()
