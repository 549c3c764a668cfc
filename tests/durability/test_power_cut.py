"""The power is cut after any system call, and of what was not synced any part is on the disk.

A run of the storage is written down by strace; from that a disk image is made for a cut after each call: with all
of what was not synced, none of it, and some of its sectors. Each image has to open, to hold every commit that was
acknowledged or seen before the cut, and nothing that was refused or that came later.
`MILKRUN_SOAK=1` makes many more images of more runs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import pytest
from durability.disk import Disk, Op, ops
from durability.told import Told, assert_holds
from durability.traced import Fault, Run, calls, record

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
pytestmark = [pytest.mark.needs("strace"), pytest.mark.timeout(3600 if SOAK else 300)]
SEEDS = range(20, 24) if SOAK else (20,)
HOWS = ("all", "none", *(("some",) * (8 if SOAK else 2)))
COMMITS = 10
KILL, EIO, ENOSPC = "signal=SIGKILL", "error=EIO", "error=ENOSPC"


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def assert_every_cut_is_survived(home: Path, image: Path, seed: int, runs: list[Run]) -> int:
    """How many images there were."""
    done = [op for each in runs for op in ops(each.trace, home)]
    assert any(op.what == "write" for op in done)
    images = 0
    for number, how in enumerate(HOWS):
        told, disk = Told(seed), Disk(home, Random(number))
        for op in done:
            _replay(op, disk, told)
            if op.what == "said" and how != "some":
                continue  # the disk is as it was
            image.mkdir()
            disk.cut(image, how=how)
            try:
                assert_holds(image / "data", told)
            except Exception as error:
                error.add_note(f"cut {number} ({how}) after {op.what} {op.path} {op.at}: see {image}")
                raise
            shutil.rmtree(image)
            images += 1
    return images


def _replay(op: Op, disk: Disk, told: Told) -> None:
    if op.what == "said":
        for line in op.data.decode().splitlines():
            told.hear(line)
    else:
        disk.apply(op)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cut_anywhere_from_the_first_start_to_the_end(home, tmp_path, seed):
    whole = record(home / "data", seed, 0, COMMITS)
    assert whole.status == 0
    assert assert_every_cut_is_survived(home, tmp_path / "image", seed, [whole]) > 500


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_restart_after_a_kill_has_shown_survives_a_cut(home, tmp_path, seed):
    """The killed process had written the commit and not synced it; the next one finds it in the system's cache."""
    data = home / "data"
    syncs = calls(record(data, seed, 0, COMMITS // 2, "drop"))["fdatasync"]
    shutil.rmtree(data)
    killed = record(data, seed, 0, COMMITS // 2, "drop", fault=Fault("fdatasync", syncs, KILL))
    after = record(data, seed, COMMITS // 2, COMMITS // 2 + 3)
    assert (killed.status, after.status) == (-9, 0)
    assert_every_cut_is_survived(home, tmp_path / "image", seed, [killed, after])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_failed_sync_loses_nothing_though_later_syncs_do_not_write_what_it_was_asked_for(
    home, tmp_path, seed
):
    data = home / "data"
    syncs = calls(record(data, seed, 0, COMMITS // 2, "drop"))["fdatasync"]
    for nth in range(5 if SOAK else syncs - 1, syncs + 1):
        shutil.rmtree(data)
        failed = record(data, seed, 0, COMMITS // 2, "drop", fault=Fault("fdatasync", nth, EIO))
        # It goes on after the sync of the folder alone: that one is made twice.
        assert failed.status == failed.said[-1].startswith("failed")
        begun = sum(line.startswith("begun") for line in failed.said)
        after = record(data, seed, begun, begun + 3)
        assert after.status == 0
        assert_every_cut_is_survived(home, tmp_path / "image", seed, [failed, after])


def test_the_files_are_there_though_sqlites_own_sync_of_their_folder_failed(home, tmp_path):
    data = home / "data"
    whole = record(data, 20, 0, 3, "drop")
    syncs = [line for line in whole.trace if " fdatasync(" in line]
    nth = [number for number, op in enumerate(ops(syncs, home), start=1) if op.path == str(data)]
    assert nth
    for each in nth:
        shutil.rmtree(data)
        failed = record(data, 20, 0, 3, "drop", fault=Fault("fdatasync", each, EIO))
        assert_every_cut_is_survived(home, tmp_path / "image", 20, [failed])


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_full_disk_refused_stays_refused_after_a_cut(home, tmp_path, seed):
    data = home / "data"
    writes = calls(record(data, seed, 0, COMMITS // 2, "drop"))["pwrite64"]
    for nth in range(writes // 2, writes + 1, 1 if SOAK else 25):
        shutil.rmtree(data)
        full = record(data, seed, 0, COMMITS // 2 + 1, fault=Fault("pwrite64", nth, ENOSPC))
        assert full.status == 0
        assert_every_cut_is_survived(home, tmp_path / "image", seed, [full])
