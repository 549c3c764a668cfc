"""How soon a registry serves again with much data, and how long one of its writers waits at the most.

    .venv/bin/python benchmarks/recovery.py [--keys N ...] [--rounds N] [--writes N] [--json]

For each number of keys (100 B each) a data directory is filled; every round then starts on it:

- `serves`: `milkrun registry` as a process, from its start to its first answered read, after `kill -9`;
- `restores`: the disk opened and the machine restored, alone in a process of its own;
- `pause`: single writes to random keys of it, each committed and synced: the longest one is what matters, as it
  contains whatever the log's folding and the checkpoints take.

The files are in the system's cache, as they are after a crash of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import msgspec
from ports import free_port

from milkrun.registry import kv
from milkrun.registry.nouns import Entry
from milkrun.registry.storage import Storage

A_TRANSACTION = 1000
VALUE_BYTES = 100
START_S = 120.0

RESTORE = """
import sys, time
from pathlib import Path
from milkrun.registry.state import Machine
from milkrun.registry.storage import Storage
began = time.perf_counter()
with Storage(Path(sys.argv[1])) as storage:
    machine = Machine.restore("n1", storage.index, storage.rows(), 0.0)
    print(time.perf_counter() - began, machine.kv.count)
"""

_encode = msgspec.msgpack.Encoder().encode


class Figures(msgspec.Struct):
    """What was measured with so many keys."""

    keys: int
    file_mb: float
    serves_s: list[float]
    restores_s: list[float]
    commit_median_ms: float
    commit_p99_ms: float
    commit_longest_ms: float


def row(number: int, index: int) -> tuple[tuple[str, str], bytes]:
    key = f"bench/{number:07}"
    value = random.randbytes(VALUE_BYTES)
    return (kv.KIND, key), _encode(Entry(key=key, value=value, create_index=index, modify_index=index))


def fill(folder: Path, keys: int) -> None:
    with Storage(folder) as storage:
        numbers = list(range(keys))
        random.shuffle(numbers)
        for index, start in enumerate(range(0, keys, A_TRANSACTION), start=2):
            storage.commit(dict(row(each, index) for each in numbers[start : start + A_TRANSACTION]), index)


def serves_s(folder: Path) -> float:
    port = free_port()
    milkrun = str(Path(sys.executable).parent / "milkrun")
    command = [milkrun, "registry", "--http", f"127.0.0.1:{port}", "--data", str(folder)]
    command += ["--host", "n1", "--acl", "open"]
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while time.perf_counter() < began + START_S:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/kv/bench/0000000?raw") as reply:
                        assert len(reply.read()) == VALUE_BYTES
                    return time.perf_counter() - began
                except urllib.error.URLError:
                    if process.poll() is not None:
                        break
                    time.sleep(0.005)
        finally:
            process.kill()
        assert process.stderr
        sys.exit(f"the registry did not serve:\n{process.stderr.read()}")


def restores_s(folder: Path, keys: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", RESTORE, str(folder)], capture_output=True, text=True, check=True
    )
    took, count = done.stdout.split()
    if int(count) != keys:
        sys.exit(f"{keys} keys were written, {count} came back")
    return float(took)


def commits_ms(folder: Path, keys: int, writes: int) -> list[float]:
    with Storage(folder) as storage:
        first = storage.index + 1
        found = []
        for index in range(first, first + writes):
            rows = dict([row(random.randrange(keys), index)])
            began = time.perf_counter()
            storage.commit(rows, index)
            found.append((time.perf_counter() - began) * 1000)
    return found


def measure(keys: int, given: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory(dir=given.dir) as home:
        folder = Path(home) / "data"
        fill(folder, keys)
        commits = sorted(commits_ms(folder, keys, given.writes))
        file_mb = sum(each.stat().st_size for each in folder.iterdir()) / 1e6
        serves, restores = [], []
        for _ in range(given.rounds):
            serves.append(serves_s(folder))
            restores.append(restores_s(folder, keys))
        shutil.rmtree(folder)
    return Figures(
        keys=keys,
        file_mb=file_mb,
        serves_s=serves,
        restores_s=restores,
        commit_median_ms=statistics.median(commits),
        commit_p99_ms=commits[int(len(commits) * 0.99)],
        commit_longest_ms=commits[-1],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--keys", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writes", type=int, default=20_000)
    parser.add_argument("--dir", default=None, help="where the data directories are made")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = [measure(keys, given) for keys in given.keys]
    if given.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")
    print(f"{'keys':>9} {'MB':>6} {'serves':>9} {'restores':>9}   commit: median, p99, longest")
    for each in found:
        print(
            f"{each.keys:>9} {each.file_mb:>6.0f} {statistics.median(each.serves_s):>7.2f} s"
            f" {statistics.median(each.restores_s):>7.2f} s   {each.commit_median_ms:.2f} ms,"
            f" {each.commit_p99_ms:.2f} ms, {each.commit_longest_ms:.1f} ms"
        )


if __name__ == "__main__":
    main()
