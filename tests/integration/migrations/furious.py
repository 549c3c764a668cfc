"""Clients in a process of their own: URL ROWS COLUMN:VERSION... They ask until stdin ends, and say how it goes.

Each line of stdout has all that became of them so far, as JSON; the last one is final.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import ledger

EVERY_S = 0.05


def tell(crowd: ledger.Crowd) -> None:
    told = {**vars(crowd), "each": list(crowd.each.items()), "tenths_ms": list(crowd.tenths_ms.items())}
    print(json.dumps(told), flush=True)


async def main(url: str, rows: str, *columns: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    pairs = [tuple(each.split(":")) for each in columns]
    async with ledger.clients(url, *pairs, rows=int(rows)) as crowd:
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), EVERY_S)
            except TimeoutError:
                tell(crowd)
    tell(crowd)


asyncio.run(main(*sys.argv[1:]))
