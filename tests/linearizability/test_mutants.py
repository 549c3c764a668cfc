"""The proof can fail: a registry with a planted fault is found out, whichever fault it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from linearizability.faulty import MUTANTS
from linearizability.process import RegistryProcess, serving
from linearizability.rounds import play

ROUNDS_AT_MOST = 20
AT_ONCE = 6


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    process = RegistryProcess.embedded(tmp_path, mutant=name)
    async with serving(process) as tasks:
        for first in range(0, ROUNDS_AT_MOST * AT_ONCE, AT_ONCE):
            seeds = range(first, first + AT_ONCE)
            cases = await play(process, tasks, seeds, faults=2, news_within_s=1.0)
            for trouble in (trouble for case in cases for trouble in case.troubles()):
                print(f"{name}: round {first // AT_ONCE + 1}: {trouble.why}")
                return
    pytest.fail(f"{ROUNDS_AT_MOST} rounds, and nobody saw it")
