"""A daemon as a process: its signals, its lock, its log lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from milkrun.cli.daemon import _line, this_host

BODY = """
import asyncio, sys
from pathlib import Path
from milkrun.cli import daemon, program

async def body(handover):
    print("up", flush=True)
    try:
        await handover.wait()
        print("left", flush=True)
    except asyncio.CancelledError:
        print("cleaned", flush=True)
        raise

program.program.get_command = lambda *_: None
try:
    daemon.run("cow", Path(sys.argv[1]), body)
except daemon.Conflict as error:
    print(error.message)
"""


def start(state: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BODY, str(state)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.first = process.stdout.readline()  # type: ignore[attr-defined]
    return process


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGTERM, "cleaned"), (signal.SIGINT, "cleaned"), (signal.SIGUSR2, "left")]
)
def test_signals_stop_it_cleanly_or_hand_over(tmp_path: Path, number: signal.Signals, said: str):
    process = start(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert out.strip() == said
    assert process.returncode == 0
    assert err.splitlines()[-1].endswith("ended")


def test_a_second_one_in_the_same_folder_is_told_who_is_first(tmp_path: Path):
    first = start(tmp_path)
    second = start(tmp_path)
    assert second.first == f"another cow (pid {first.pid}) runs in {tmp_path} already\n"  # type: ignore[attr-defined]
    second.communicate(timeout=20)
    first.kill()
    first.communicate()
    third = start(tmp_path)
    assert third.first == "up\n"  # type: ignore[attr-defined]
    os.kill(third.pid, signal.SIGKILL)
    third.communicate()


def test_a_log_line_is_one_line_whatever_stands_in_it():
    line = _line(None, "", {"timestamp": "T", "level": "info", "event": "a\nb", "why": 'x "y"\nz', "n": 3})
    assert line == 'T info    a\\nb why="x \\"y\\"\\nz" n=3'


def test_this_host_is_a_name_that_can_stand_in_an_id():
    assert this_host() == this_host().lower()
    assert all(char.isalnum() or char == "-" for char in this_host())
