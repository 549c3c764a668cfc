"""What a backfill costs beside one plain UPDATE of the whole table, and what its clients feel of each.

    .venv/bin/python benchmarks/backfill.py [--rows N] [--rounds N] [--clients N] [--json]

PostgreSQL's server programs are needed. Each round makes the table anew for each way, with the column and the trigger
that a rename has, and clients of both versions that never stop asking, in a process of their own; who is first changes
from round to round. Of each round the ratio of the two speeds is taken, and of the ratios the median. `nothing` is the
clients with nobody beside them, for as long as the plain UPDATE took. The longest wait is the slowest statement of any
client: of the rows that the plain UPDATE has changed, none can be changed by anybody until it ends. A client that
waits asks nothing meanwhile, so the p99 of the statements knows little of that: beside it is that of the moments, of
which 99 in 100 fall into a statement that takes at most so long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "integration"))

import psycopg
from migrations import ledger
from migrations.cluster import Cluster, bottles

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import Address
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import Session, opened
from milkrun.rollout.migrations.steps import steps
from milkrun.settings.migration import MigrationSettings

PLAIN, BATCHES, NOTHING = "plain", "backfill", "nothing"
Way = Callable[[Session], Awaitable[None]]


async def plain(session: Session) -> None:
    await session.connection.execute("UPDATE bottles SET goat = name WHERE goat IS NULL")


async def batches(session: Session) -> None:
    await backfill(session, parse(ledger.BACKFILL, "backfill.sql"), lambda _: None)


def of_moments_ms(crowd: ledger.Crowd) -> float:
    """What the statement takes, at most, into which 99 of 100 moments fall."""
    left = 0.99 * sum(tenths * count for tenths, count in crowd.tenths_ms.items())
    for tenths, count in sorted(crowd.tenths_ms.items()):
        left -= tenths * count
        if left <= 0:
            return tenths / 10
    return 0.0


async def measured(cluster: Cluster, way: Way, rows: int, clients: int) -> dict[str, float]:
    """Rows a second, and the clients' p99 and longest wait in ms, while the work went on."""
    url = cluster.database()
    bottles(url, rows)
    pairs = [("name", "1"), ("goat", "2")] * (clients // 2)
    async with opened(Address(url), "ledger", "2", MigrationSettings(), lambda _: None) as session:
        await apply(session, steps(parse(ledger.EXPAND, "expand.sql"), "expand"))
        await session.connection.execute("VACUUM ANALYZE bottles")
        await session.connection.execute("CHECKPOINT")
        async with ledger.elsewhere(url, *pairs, rows=rows) as crowd:
            await ledger.each_answered(crowd, len(pairs))
            began = time.perf_counter()
            await way(session)
            took_s = time.perf_counter() - began
        assert not crowd.errors, crowd.told()
    wrong = "select count(*) from bottles where goat is distinct from name"
    assert way not in (plain, batches) or ledger.one(url, wrong) == 0
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f"drop database {name}".encode())
    return {
        "took_s": took_s, "rate": rows / took_s, "p99_ms": crowd.p99_ms(), "moments_ms": of_moments_ms(crowd),
        "longest_ms": crowd.slowest_ms, "answered": crowd.answered / took_s,
    }  # fmt: skip


async def rounds(asked: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Each way's figures, a dict for each round."""
    found: dict[str, list[dict[str, float]]] = {PLAIN: [], BATCHES: [], NOTHING: []}
    cluster = Cluster()
    try:
        for number in range(asked.rounds):
            ways = [(PLAIN, plain), (BATCHES, batches)]
            for name, way in ways if number % 2 else reversed(ways):
                found[name].append(await measured(cluster, way, asked.rows, asked.clients))
            as_long = found[PLAIN][-1]["took_s"]
            found[NOTHING].append(
                await measured(cluster, lambda _, s=as_long: asyncio.sleep(s), asked.rows, asked.clients)
            )
    finally:
        cluster.stop()
    return found


def medians(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The medians of each way, with the median of the ratios of the speeds within a round."""
    told = {
        name: {key: statistics.median(each[key] for each in all_rounds) for key in all_rounds[0]}
        for name, all_rounds in found.items()
    }
    ratios = [one["rate"] / other["rate"] for one, other in zip(found[BATCHES], found[PLAIN], strict=True)]
    told[BATCHES]["ratio"] = statistics.median(ratios)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = medians(asyncio.run(rounds(asked)))
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{asked.rows} rows, {asked.clients} clients, {asked.rounds} rounds, {os.cpu_count()} cores")
    for name, each in found.items():
        speed = f"{each['rate']:9,.0f} rows/s" if name != NOTHING else " " * 16
        print(
            f"{name:8} {speed}  clients: {each['answered']:6,.0f} statements/s,"
            f" p99 {each['p99_ms']:5.1f} ms, of moments {each['moments_ms']:7.1f} ms,"
            f" longest {each['longest_ms']:7.0f} ms"
        )
    print(f"the backfill's speed is {found[BATCHES]['ratio']:.2f} of the plain UPDATE's")


if __name__ == "__main__":
    main()
