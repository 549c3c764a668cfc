"""The proof can fail: a registry with a planted fault is found out, whichever fault it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from linearizability.faulty import MUTANTS
from linearizability.process import RegistryProcess
from linearizability.rounds import play
from ports import free_port

ROUNDS_AT_MOST = 20
AT_ONCE = 6


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    process = RegistryProcess(free_port(), tmp_path / "data", mutant=name)
    async with asyncio.TaskGroup() as tasks:
        await process.start(tasks)
        try:
            for first in range(0, ROUNDS_AT_MOST * AT_ONCE, AT_ONCE):
                cases = await play(process, tasks, range(first, first + AT_ONCE), news_within_s=1.0)
                for trouble in (trouble for case in cases for trouble in case.troubles()):
                    print(f"{name}: round {first // AT_ONCE + 1}: {trouble.why}")
                    return
        finally:
            await process.end()
    pytest.fail(f"{ROUNDS_AT_MOST} rounds, and nobody saw it")
