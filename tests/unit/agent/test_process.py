import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from milkrun.agent.units import logfile
from milkrun.agent.units.marked import marked
from milkrun.agent.units.process import Process, kill, kill_remains
from milkrun.agent.units.program import Program
from milkrun.errors import PartMissing
from milkrun.host.process import identity

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    "time.sleep(60)"
)


@pytest.fixture
def start(tmp_path):
    """Starts Python programs, and ends what they left. Gives the process and a future of how it ended."""
    log = tmp_path / "log"
    log.touch()

    def starting(code, *, command=None):
        ended = asyncio.get_running_loop().create_future()
        program = Program(
            arguments=command or [sys.executable, "-c", code],
            environment={"MILKRUN_STATE": str(tmp_path), "MILKRUN_INSTANCE": "goat-1"},
            folder=tmp_path,
            log=log,
        )
        return Process.start(program, ended.set_result), ended

    yield starting
    for found in marked(str(tmp_path)):
        kill(found.identity)


async def said(path: Path, text: str):
    async with asyncio.timeout(10):
        while text not in path.read_text():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("raise SystemExit(3)", "process exited with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    ],
)
async def test_how_it_ended_is_told(start, code, outcome):
    _, ended = start(code)
    assert await ended == outcome


async def test_its_output_is_appended_to_the_log(start, tmp_path):
    (tmp_path / "log").write_text("before\n")
    _, ended = start("import sys; print('out'); print('err', file=sys.stderr)")
    await ended
    assert sorted((tmp_path / "log").read_text().split()) == ["before", "err", "out"]


async def test_it_ends_by_sigterm_or_by_sigkill(start, tmp_path):
    process, ended = start("import time; print('up', flush=True); time.sleep(60)")
    await said(tmp_path / "log", "up")
    assert await process.stop(10)
    assert await ended == "killed by signal 15"
    (tmp_path / "log").write_text("")
    process, ended = start(STUBBORN)
    await said(tmp_path / "log", "up")
    assert not await process.stop(0.1)
    assert await ended == "killed by signal 9"


async def test_it_ends_by_the_signal_of_its_settings(start, tmp_path):
    process, ended = start("import time; print('up', flush=True); time.sleep(60)")
    await said(tmp_path / "log", "up")
    process.ends_by = signal.SIGQUIT
    assert await process.stop(10)
    assert await ended == "killed by signal 3"


async def test_a_program_that_is_not_there_is_named(start):
    with pytest.raises(PartMissing, match="no-such-program: there is no such program here"):
        start("", command=["no-such-program"])


async def test_it_is_adopted_by_its_identity_and_seen_to_end(start, tmp_path):
    first, ended = start("import time; time.sleep(60)")
    first.leave()
    told = asyncio.get_running_loop().create_future()
    second = Process.adopt(first.identity, told.set_result)
    assert second is not None
    os.kill(first.identity.pid, signal.SIGKILL)
    await told
    assert not ended.done()
    assert Process.adopt(first.identity, told.set_result) is None


async def test_another_process_with_the_same_pid_is_not_it(start):
    process, ended = start("import time; time.sleep(60)")
    for other in ({"ticks": process.identity.ticks - 1}, {"boot": "another"}):
        old = msgspec.structs.replace(process.identity, **other)
        assert Process.adopt(old, print) is None
        kill(old)
    assert await process.stop(10)
    assert await ended == "killed by signal 15", "not by the SIGKILL that was meant for another"


async def test_it_is_found_by_its_environment(start, tmp_path):
    process, _ = start("import time; print('up', flush=True); time.sleep(60)")
    await said(tmp_path / "log", "up")  # before that its environment may not be there to be read yet
    (found,) = marked(str(tmp_path))
    assert (found.identity, found.instance, found.leader) == (process.identity, "goat-1", True)
    assert marked(str(tmp_path / "other")) == []
    process.leave()


async def test_what_it_leaves_behind_is_killed(start, tmp_path):
    code = (
        "import subprocess, sys; "
        "subprocess.Popen([sys.executable, '-c', 'import time; print(5, flush=True); time.sleep(60)'])"
    )
    _, ended = start(code)
    await ended
    await said(tmp_path / "log", "5")
    (child,) = marked(str(tmp_path))
    assert not child.leader
    assert kill_remains("another", str(tmp_path)) == []
    assert kill_remains("goat-1", str(tmp_path)) == [child.identity.pid]
    async with asyncio.timeout(5):
        while identity(child.identity.pid):
            await asyncio.sleep(0.01)


def test_a_long_log_is_rotated_and_the_writer_goes_on(tmp_path):
    path = tmp_path / "log"
    with logfile.opened(path) as log:
        os.write(log, b"old " * 10)
        assert not logfile.rotate(path, 40)
        os.write(log, b"x")
        assert logfile.rotate(path, 40)
        os.write(log, b"new")
    assert path.read_bytes() == b"new"
    assert path.with_name("log.1").read_bytes() == b"old " * 10 + b"x"
    with contextlib.suppress(FileNotFoundError):
        assert not logfile.rotate(tmp_path / "none")
