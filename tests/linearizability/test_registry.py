"""The embedded registry is linearizable and its watches are streams, whatever happens to its process.

`make soak` (MILKRUN_SOAK=1) makes 100,000 histories. MILKRUN_SEED=N begins with the workload of a history that
failed before; MILKRUN_HISTORIES=N makes that many.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from linearizability import operations as ops
from linearizability.process import RegistryProcess, serving
from linearizability.rounds import Case, play

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
HISTORIES = int(os.environ.get("MILKRUN_HISTORIES", "100000" if SOAK else "500"))
SEED = int(os.environ.get("MILKRUN_SEED", random.randrange(10**9)))
AT_ONCE = 20


@pytest.mark.timeout(0 if SOAK else 300)
async def test_every_history_is_linearizable_and_every_watch_a_stream(tmp_path: Path) -> None:
    process = RegistryProcess.embedded(tmp_path)
    figures: Counter[str] = Counter()
    async with serving(process) as tasks:
        for first in range(SEED, SEED + HISTORIES, AT_ONCE):
            seeds = range(first, min(first + AT_ONCE, SEED + HISTORIES))
            for case in await play(process, tasks, seeds):
                judged(case, process)
                figures += counted(case)
    print(f"{HISTORIES} histories from seed {SEED}, {process.generation} starts: {dict(figures)}")
    if HISTORIES >= 100:  # a proof over calls that all failed would be none
        assert process.generation > HISTORIES / AT_ONCE
        for what in ("unknown", "cas", "no cas", "done", "undone", "lock", "no lock", "no session", "sights"):
            assert figures[what] >= HISTORIES / 2, what


@pytest.mark.timeout(0 if SOAK else 300)
async def test_a_long_history_is_linearizable_too(tmp_path: Path) -> None:
    """More than 2,000 calls each, over many restarts."""
    process = RegistryProcess.embedded(tmp_path)
    async with serving(process) as tasks:
        for first in range(SEED, SEED + (400 if SOAK else 4), 4):
            for case in await play(process, tasks, range(first, first + 4), calls_each=200, faults=9):
                judged(case, process)
                assert len(case.calls) > 2000


@pytest.mark.needs("consul")
async def test_the_model_is_consuls(tmp_path: Path) -> None:
    """What the embedded registry is measured by holds for a real Consul, with nobody who kills it."""
    process = RegistryProcess.consul(tmp_path)
    async with serving(process) as tasks:
        for first in range(SEED, SEED + 60, AT_ONCE):
            for case in await play(process, tasks, range(first, first + AT_ONCE), faults=0):
                judged(case, process)


def judged(case: Case, process: RegistryProcess) -> None:
    if troubles := list(itertools.islice(case.troubles(), 3)):
        told = "\n\n".join(map(str, troubles))
        pytest.fail(
            f"the history of seed {case.workload.seed} is none of a registry"
            f" (MILKRUN_SEED={case.workload.seed} begins with it)\n{told}\n\n" + "\n".join(process.log),
            pytrace=False,
        )


def counted(case: Case) -> Counter[str]:
    """What the history is made of."""
    figures: Counter[str] = Counter()
    for call in case.calls:
        figures["calls"] += 1
        match call.operation, call.answer:
            case _, None:
                figures["unknown"] += 1
            case ops.Cas(), ops.Said(yes):
                figures["cas" if yes else "no cas"] += 1
            case ops.Acquire(), ops.Said(yes):
                figures["lock" if yes else "no lock"] += 1
            case _, ops.NoSession():
                figures["no session"] += 1
            case ops.Txn(), ops.Done() | ops.Undone():
                figures["done" if isinstance(call.answer, ops.Done) else "undone"] += 1
    figures["sights"] = sum(map(len, case.sights.values()))
    return figures
