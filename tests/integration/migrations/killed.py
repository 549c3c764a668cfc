"""Applies the expansion until it is killed, before statement NUMBER or before it is recorded: URL NUMBER WHEN."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import ledger

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.database import Address
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.settings.migration import MigrationSettings


async def main(url: str, number: str, when: str) -> None:
    def say(text: str) -> None:
        if when == "before" and f"expand {number}/" in text:
            os.kill(os.getpid(), signal.SIGKILL)

    async with opened(Address(url), "ledger", "2", MigrationSettings(), say) as here:
        put = here.record.put

        async def dies(step, entry):
            if when == "unrecorded" and step.number == int(number) and entry.state == "done":
                os.kill(os.getpid(), signal.SIGKILL)
            await put(step, entry)

        here.record.put = dies
        await apply(here, steps(parse(ledger.EXPAND, "expand.sql"), "expand"))


asyncio.run(main(*sys.argv[1:]))
