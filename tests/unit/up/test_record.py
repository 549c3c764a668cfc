"""What is written down about processes is believed only of the very same process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from milkrun.errors import Conflict
from milkrun.host.process import identity
from milkrun.settings.folder import Folder
from milkrun.up import leftovers, lock
from milkrun.up.record import Known, Record, load, save, the_only_up


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.state.mkdir()
    return made


def me() -> Known:
    known = identity(os.getpid())
    assert known
    return Known(identity=known)


def test_a_record_comes_back(folder: Folder):
    record = Record(up=me(), ready=True, parts={"agent": me()})
    save(folder, record)
    assert load(folder) == record
    assert me().alive()


def test_a_pid_that_is_another_process_by_now_is_not_alive():
    reused = Known(identity=msgspec.structs.replace(me().identity, ticks=1))
    assert not reused.alive()


def test_no_record_or_a_broken_one_is_none(folder: Folder):
    assert load(folder) is None
    folder.up_file.write_text("{")
    assert load(folder) is None


def test_leftovers_are_the_parts_of_the_record_that_still_run_and_those_that_hold_a_lock(folder: Folder):
    gone = Known(identity=msgspec.structs.replace(me().identity, ticks=1))
    save(folder, Record(up=gone, parts={"agent": me(), "gitsync": gone}))
    with lock.only_one(folder.router("lb-goat") / lock.DAEMON, Conflict):
        assert leftovers.parts(folder) == {"agent": me().identity, "lb-goat": me().identity}
    assert leftovers.parts(folder) == {"agent": me().identity}


def test_a_second_up_is_told_who_is_first(folder: Folder):
    with the_only_up(folder), pytest.raises(Conflict) as caught, the_only_up(folder):
        pass
    assert f"(pid {os.getpid()})" in caught.value.message
    with the_only_up(folder):
        pass


def test_the_lock_goes_with_its_process(folder: Folder):
    code = (
        "import sys; from pathlib import Path; from milkrun.up import lock\n"
        "with lock.only_one(Path(sys.argv[1]), ValueError):\n print('held', flush=True); sys.stdin.read()"
    )
    path = folder.state / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        assert lock.holder(path) == process.pid
        process.kill()
    assert lock.holder(path) is None
