"""Clients that never stop: writers who bring bottles and correct labels, and remember what they were told.

Each bottle has one writer, who waits for each answer: so its last acknowledged state is what has to be in the ledger.
A request is never repeated; one that fails is counted.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import NamedTuple

import aiohttp

FARMERS = ("anna", "benno", "clara", "dietl")
GOATS = ("heidi", "liesl", "resi", "vroni", "zenzi")
WITHIN_S = 10.0


class Bottle(NamedTuple):
    """What is in a bottle, and whose it is."""

    farmer: str
    goat: str
    litres: Decimal


def bottle(dice: random.Random) -> Bottle:
    """Any bottle."""
    return Bottle(dice.choice(FARMERS), dice.choice(GOATS), Decimal(dice.randint(1, 50)) / 10)


class Writers:
    """What became of their requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sold: dict[uuid.UUID, Bottle] = {}
        self.written, self.corrected, self.slowest_ms = 0, 0, 0.0
        self.failures: Counter[str] = Counter()
        self.by_version: Counter[str] = Counter()
        self.ended = False

    async def write(self, http: aiohttp.ClientSession, seed: int, every_s: float) -> None:
        """Never ends by itself: bottles come in, and each third request corrects an earlier one."""
        dice = random.Random(seed)
        own: list[uuid.UUID] = []
        due = time.monotonic()
        while not self.ended:
            due = max(
                due + every_s, time.monotonic() - 1
            )  # after a stall the missed ones follow, not for ever
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            new = not own or dice.random() < 2 / 3
            ticket = uuid.UUID(int=dice.getrandbits(128), version=4) if new else dice.choice(own)
            wanted = bottle(dice)
            if not await self.ask(http, ticket, wanted, new=new):
                continue
            self.sold[ticket] = wanted
            if new:
                own.append(ticket)
                self.written += 1
            else:
                self.corrected += 1

    async def ask(self, http: aiohttp.ClientSession, ticket: uuid.UUID, wanted: Bottle, *, new: bool) -> bool:
        """Whether the ledger said that the bottle is in it as wanted."""
        body = {"farmer": wanted.farmer, "goat": wanted.goat, "litres": float(wanted.litres)}
        began = time.monotonic()
        try:
            if new:
                request = http.post(self.url, json={"ticket": str(ticket)} | body)
            else:
                request = http.put(f"{self.url}/{ticket}", json=body)
            async with request as answer:
                said = await answer.json() if answer.status == 200 else {}
                if said.get("written") == 1:
                    self.by_version[said["ledger"]["version"]] += 1
                    return True
                self.failures[f"status {answer.status} {said}"] += 1
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.failures[type(error).__name__] += 1
        finally:
            self.slowest_ms = max(self.slowest_ms, 1000 * (time.monotonic() - began))
        return False


@asynccontextmanager
async def writing(url: str, *, writers: int, rate: float) -> AsyncIterator[Writers]:
    """They write `rate` bottles a second together, until the end; then none of their requests is under way."""
    them = Writers(url)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
    timeout = aiohttp.ClientTimeout(total=WITHIN_S)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for seed in range(writers):
            tasks.create_task(them.write(http, seed, writers / rate))
        try:
            yield them
        finally:
            them.ended = True
