"""Goes through a phase until it is killed, before statement NUMBER or before that is recorded: URL PHASE NUMBER WHEN.

A backfill's statements are its batches.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import ledger

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import Address
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.settings.migration import MigrationSettings


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, phase: str, number: str, when: str) -> None:
    batches = iter(range(1, 1000))

    def say(text: str) -> None:
        if when == "before" and f"{phase} {number}/" in text:
            die()

    async with opened(Address(url), "ledger", "2", MigrationSettings(batch=500), say) as here:
        put = here.record.put

        async def dies(step, entry):
            at = next(batches) if entry.cursor else step.number
            if when == "unrecorded" and at == int(number) and (entry.state == "done" or entry.cursor):
                die()
            await put(step, entry)

        here.record.put = dies
        if phase == "backfill":
            await backfill(here, parse(Path(sys.argv[5]).read_bytes(), "backfill.sql"), lambda _: None)
        else:
            await apply(here, ledger.PLANS[phase])


asyncio.run(main(*sys.argv[1:5]))
