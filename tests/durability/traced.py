"""The writer under strace, which makes one system call fail, or kills the process at it, or writes all of them down."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

WRITER = Path(__file__).with_name("writer.py")
CHANGES = ("mkdir", "chmod", "openat", "pwrite64", "ftruncate", "fsync", "fdatasync", "unlink")
"""The calls by which the storage changes the disk; `openat` may make a file."""
READS = ("pread64",)
_OTHERS = ("write", "rename", "renameat", "renameat2", "fallocate", "writev", "pwritev", "mmap", "truncate")
"""Calls that would change the disk too, and that it does not make: a recording that has one is refused."""
_CALL = re.compile(r"^\d+\s+(\w+)\(")


class Fault(NamedTuple):
    """What happens at the nth call of this name: `error=EIO`, `error=ENOSPC` or `signal=SIGKILL`."""

    call: str
    nth: int
    what: str

    def __str__(self) -> str:
        return f"{self.what.partition('=')[2]} at {self.call} {self.nth}"


class Run(NamedTuple):
    """How a writer ended (negative: by that signal), what it said, and the lines that strace wrote."""

    status: int
    said: list[str]
    trace: list[str]


def run(folder: Path, *given: object, fault: Fault | None = None) -> Run:
    """A writer that works in `folder`, which its calls' numbers count alone."""
    files = ["", "/lock", "/registry.db", "/registry.db-wal", "/registry.db-journal"]
    paths = [str(folder.parent), *(f"{folder}{each}" for each in files)]
    options = [word for path in paths for word in ("-P", path)]
    options += ["-y", "-e", f"trace={','.join((*CHANGES, *READS))}"]
    if fault:
        options += ["-e", f"inject={fault.call}:{fault.what}:when={fault.nth}"]
    return _strace(options, folder, given)


def record(folder: Path, *given: object, fault: Fault | None = None) -> Run:
    """The same with everything that it writes and says, in full."""
    options = ["-y", "-xx", "-s", "1000000", "-e", f"trace={','.join((*CHANGES, *_OTHERS))}"]
    if fault:  # its number counts the calls of the whole process
        options += ["-e", f"inject={fault.call}:{fault.what}:when={fault.nth}"]
    return _strace(options, folder, given)


def calls(made: Run) -> Counter[str]:
    """How many of each call there were."""
    return Counter(found[1] for line in made.trace if (found := _CALL.match(line)))


def _strace(options: list[str], folder: Path, given: tuple[object, ...]) -> Run:
    trace = folder.parent / f"{folder.name}.trace"
    tests = Path(__file__).parent.parent
    command = ["strace", "-f", "-o", str(trace), *options, sys.executable, str(WRITER), str(folder)]
    done = subprocess.run(
        [*command, *map(str, given)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tests), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert not done.stderr, done.stderr
    return Run(done.returncode, done.stdout.splitlines(), trace.read_text().splitlines())
