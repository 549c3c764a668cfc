"""One system call of the storage fails, or is the process's last: nothing acknowledged is lost, nothing comes back.

Each case is a process of its own under strace. `MILKRUN_SOAK=1` takes every call of a run, the suite every
ninth; what a kill leaves behind is looked at for every call by the power cuts as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from durability.told import Told, assert_holds
from durability.traced import CHANGES, READS, Fault, Run, calls, run
from durability.writer import FIRST_INDEX

from milkrun.registry.storage import Storage

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
pytestmark = [pytest.mark.needs("strace"), pytest.mark.timeout(3600 if SOAK else 300)]
SEEDS = range(7, 12) if SOAK else (7,)
EVERY = 1 if SOAK else 9
COMMITS = 14
RECOVERED = 8
KILL, EIO, ENOSPC = "signal=SIGKILL", "error=EIO", "error=ENOSPC"


def faults(whole: Run, what: str, among: tuple[str, ...]) -> Iterator[Fault]:
    """Some of the calls of a whole run, so that each name is among them, the first and the last."""
    for name, count in sorted(calls(whole).items()):
        if name in among:
            for nth in sorted({*range(1, count + 1, EVERY), count}):
                yield Fault(name, nth, what)


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A place for a case, empty each time that it is taken."""
    return tmp_path / "home" / "data"


def fresh(folder: Path, start: Path | None = None) -> None:
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.parent.mkdir()
    if start:
        shutil.copytree(start, folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_at_any_call_loses_nothing_and_brings_nothing_back(folder, seed):
    fresh(folder)
    whole = run(folder, seed, 0, COMMITS)
    assert whole.status == 0
    for fault in faults(whole, KILL, CHANGES):
        fresh(folder)
        case = run(folder, seed, 0, COMMITS, fault=fault)
        assert case.status == -9, fault
        assert_holds(folder, Told(seed, case.said))


@pytest.fixture
def crashed(tmp_path) -> tuple[Path, list[str]]:
    """What a process left that was killed in the middle of a commit, after others; and what it had said."""
    left = tmp_path / "first" / "left"
    left.parent.mkdir()
    whole = run(left, RECOVERED, 0, COMMITS - 4, "drop")
    shutil.rmtree(left)
    killed = run(
        left, RECOVERED, 0, COMMITS - 4, "drop", fault=Fault("fdatasync", calls(whole)["fdatasync"], KILL)
    )
    alone = tmp_path / "alone"
    shutil.copytree(left, alone, ignore=lambda *_: ["registry.db-wal"])
    with Storage(alone) as disk:
        assert disk.index < Told(RECOVERED, killed.said).there[-1] + FIRST_INDEX, (
            "nothing is in the write-ahead log alone"
        )
    return left, killed.said


@pytest.mark.parametrize("what", [KILL, EIO, ENOSPC])
def test_recovery_can_fail_or_be_killed_at_any_call_and_tried_again(folder, crashed, what):
    left, before = crashed
    fresh(folder, left)
    whole = run(folder, RECOVERED, COMMITS - 4, COMMITS - 2)
    assert Told(RECOVERED, [*before, *whole.said]).there[-1] == COMMITS - 3
    for fault in faults(whole, what, (*CHANGES, *READS) if what == EIO else CHANGES):
        fresh(folder, left)
        case = run(folder, RECOVERED, COMMITS - 4, COMMITS - 2, fault=fault)
        told = Told(RECOVERED, [*before, *case.said])
        assert case.status == (-9 if what == KILL else 1 if told.failed else 0), (fault, case)
        assert_holds(folder, told)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_failed_sync_ends_the_process_wherever_it_is(folder, seed):
    """In a commit, in the log's folding, in a checkpoint: also there where SQLite itself would go on."""
    fresh(folder)
    whole = run(folder, seed, 0, COMMITS, "drop")
    assert whole.status == 0
    for name in ("fsync", "fdatasync"):
        for nth in range(1, calls(whole)[name] + 1):
            fresh(folder)
            case = run(folder, seed, 0, COMMITS, "drop", fault=Fault(name, nth, EIO))
            told = Told(seed, case.said)
            (failed,) = [line for line in case.trace if "INJECTED" in line]
            if name == "fdatasync" and f"<{folder}>" in failed:
                # SQLite passes over this one; the storage syncs the folder once more before it is used.
                assert case.status == 0, (nth, case)
            else:
                assert case.status == 1, (nth, case)
                assert "cannot be" in told.failed
            assert_holds(folder, told)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_failed_write_refuses_the_commit_or_ends_the_process_and_is_never_half_there(folder, seed):
    fresh(folder)
    whole = run(folder, seed, 0, COMMITS, "drop")
    for fault in faults(whole, EIO, ("openat", "pwrite64", "ftruncate", "unlink")):
        fresh(folder)
        case = run(folder, seed, 0, COMMITS, "drop", fault=fault)
        told = Told(seed, case.said)
        assert case.status == (1 if told.failed else 0), (fault, case)
        assert not told.refused, "only a full disk is a reason to refuse and go on"
        assert_holds(folder, told)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disk_that_is_full_at_any_write_refuses_that_commit_alone(folder, seed):
    fresh(folder)
    whole = run(folder, seed, 0, COMMITS, "drop")
    refused = 0
    for fault in faults(whole, ENOSPC, ("pwrite64",)):
        fresh(folder)
        case = run(folder, seed, 0, COMMITS, "drop", fault=fault)
        told = Told(seed, case.said)
        if told.opened:
            assert (case.status, told.failed) == (0, ""), (fault, case)
            assert len(told.there) + len(told.refused) == COMMITS
            assert len(told.refused) <= 1
            refused += len(told.refused)
        assert_holds(folder, told)
    assert refused > 2, "some were refused: the test shows it"
