"""`make demo-ledger`: a table changes twice while everybody writes, and the sums say whether anything was lost.

A private PostgreSQL and the environment are started in new folders, and are gone at the end, also after Ctrl-C. Exit
status: 0 nothing was lost or refused, 1 something was, or a part is missing, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

try:
    import cluster
    import psycopg
except ImportError:
    sys.exit("the demo needs psycopg: pip install 'milkrun[postgres]'")

import clients
import environment

MOVES = (
    ("2.0", "label becomes farmer and goat", "label IS DISTINCT FROM farmer || '/' || goat"),
    ("3.0", "amount becomes litres", "amount IS DISTINCT FROM litres"),
)
"""Each rollout, and what no row may be between its expansion and its contract."""

KINDS = ("lost", "twice", "unknown", "wrong")
"""How a bottle of the ledger may differ from what the clients were told."""


def say(text: str) -> None:
    """The demo's talk; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def one(url: str, query: str) -> Any:
    """The one value that the query gives."""
    with psycopg.connect(url, application_name="demo") as connection:
        return connection.execute(query.encode()).fetchone()[0]


def old_bottles(url: str, count: int) -> dict[uuid.UUID, clients.Bottle]:
    """The table of 1.0 is there with so many bottles, which are returned."""
    dice = random.Random("old bottles")
    made = {uuid.UUID(int=dice.getrandbits(128), version=4): clients.bottle(dice) for _ in range(count)}
    with psycopg.connect(url) as connection:
        connection.execute((environment.EXAMPLE / "schema.sql").read_bytes())
        with connection.cursor().copy("COPY bottles (ticket, label, amount) FROM STDIN") as copy:
            for ticket, each in made.items():
                copy.write_row((ticket, f"{each.farmer}/{each.goat}", each.litres))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE bottles")
    return made


def columns(url: str) -> list[str]:
    """The table's columns."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'bottles' ORDER BY ordinal_position"
        )
        return [row[0] for row in rows]


def compared(url: str, wanted: dict[uuid.UUID, clients.Bottle]) -> dict[str, int]:
    """How many bottles are lost, twice, unknown to the clients, or not as they were acknowledged."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT ticket, farmer, goat, litres FROM bottles").fetchall()
    found = {row[0]: clients.Bottle(*row[1:]) for row in rows}
    return {
        "lost": len(wanted.keys() - found.keys()),
        "unknown": len(found.keys() - wanted.keys()),
        "twice": len(rows) - len(found),
        "wrong": sum(found[ticket] != wanted[ticket] for ticket in wanted.keys() & found.keys()),
    }


async def rolled_out(
    this: environment.Farm, url: str, version: str, what: str, unequal: str
) -> dict[str, Any]:
    """The version has all the traffic, and what only the one before used is gone."""
    say(f"\n{version}: {what}")
    await this.milkrun("deploy", "ledger", version)
    rows = one(url, "SELECT count(*) FROM bottles")
    apart = one(url, f"SELECT count(*) FROM bottles WHERE {unequal}")
    say(f"  both forms are there: {rows - apart:,} of {rows:,} bottles say the same in either")
    await this.milkrun("migrate", "contract", "ledger")
    say(f"  the columns are now: {', '.join(columns(url))}")
    return {"version": version, "rows": rows, "apart": apart, "columns": columns(url)}


async def shown(arguments: argparse.Namespace, folder: Path, ports: list[int], url: str) -> dict[str, Any]:
    """What came of it all."""
    wanted = old_bottles(url, arguments.bottles)
    say(f"PostgreSQL {one(url, 'SHOW server_version')}; {len(wanted):,} bottles in the ledger")
    async with environment.farm(folder, ports, url, say, arguments.quick) as this:
        say(f"two instances of 1.0 behind {this.url}; the clients begin, and do not stop")
        async with (
            environment.reading(this, arguments.rate) as read,
            clients.writing(this.url, writers=8, rate=arguments.rate) as writers,
        ):
            moves = [await rolled_out(this, url, *move) for move in MOVES]
    load = json.loads(read())
    wanted |= writers.sold
    return {
        "moves": moves,
        "written": writers.written, "corrected": writers.corrected, "slowest_ms": round(writers.slowest_ms),
        "failures": dict(writers.failures), "by_version": dict(writers.by_version),
        "read": load["answered"], "reads_failed": load["failed"], "read_failures": load["failures"],
        "bottles": one(url, "SELECT count(*) FROM bottles"), "bottles_wanted": len(wanted),
        "litres": str(one(url, "SELECT sum(litres) FROM bottles")),
        "litres_wanted": str(sum((each.litres for each in wanted.values()), Decimal(0))),
        "columns": columns(url),
        **compared(url, wanted),
    }  # fmt: skip


def clean(result: dict[str, Any]) -> bool:
    """Whether nothing was lost, doubled, refused or different."""
    sums = result["bottles"] == result["bottles_wanted"] and result["litres"] == result["litres_wanted"]
    wrong = any(result[key] for key in ("failures", "reads_failed", *KINDS))
    return sums and not wrong and not any(move["apart"] for move in result["moves"])


def told(result: dict[str, Any]) -> str:
    """The result for people."""
    by = ", ".join(f"{count:,} by {version}" for version, count in sorted(result["by_version"].items()))
    failed = sum(result["failures"].values()) + result["reads_failed"]
    reasons = {**result["failures"], **result["read_failures"]}
    lines = {
        "written": f"{result['written']:,} bottles, and {result['corrected']:,} corrected ({by})",
        "read": f"{result['read']:,} times",
        "failed": f"{failed}{f' {reasons}' if reasons else ''}; the slowest write took {result['slowest_ms']} ms",
        "ledger": f"{result['bottles']:,} bottles, {result['litres']} litres",
        "promised": f"{result['bottles_wanted']:,} bottles, {result['litres_wanted']} litres",
        "bottles": ", ".join(f"{result[key]} {key}" for key in KINDS),
    }
    return "\n" + "\n".join(f"{name:9} {text}" for name, text in lines.items())


def flat(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """The exceptions themselves."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from flat(each)
        else:
            yield each


async def main(arguments: argparse.Namespace) -> int:
    """The exit status."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    ports = environment.free_ports()
    folder = Path(tempfile.mkdtemp(prefix="milkrun-ledger-"))
    result = None
    try:
        with cluster.cluster(ports[4]) as url:
            result = await shown(arguments, folder, ports, url)
    except* (cluster.ProgramsMissing, environment.Failed) as problems:
        for problem in flat(problems):
            say(f"make demo-ledger: {problem}")
    finally:
        shutil.rmtree(folder)
    if result is None:
        return 1
    print(json.dumps(result) if arguments.json else told(result), flush=True)
    return 0 if clean(result) else 1


def asked() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bottles", type=int, default=200_000, help="how many there are before (200000)")
    parser.add_argument("--rate", type=float, default=80, help="writes a second, and as many reads (80)")
    parser.add_argument("--quick", action="store_true", help="with short waits, for tests")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(asked())))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted: all of it was stopped")
        sys.exit(130)
