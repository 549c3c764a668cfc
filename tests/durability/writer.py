"""A process that commits to a data directory and says of each commit what came of it, for tests that stop it.

    python writer.py FOLDER SEED FIRST END [close|drop]

It says `open INDEX`, `begun N`, `acked N`, `refused N` or `failed WHY`, each in one write. The log is folded and
checkpointed after a few commits here, so that all of it happens in a short run. `drop` ends without closing, also
after a failure.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from milkrun.errors import StorageFailed
from milkrun.registry import storage
from milkrun.registry.ledger import Row
from milkrun.registry.storage import DiskFull, Storage

KEYS = 12
FIRST_INDEX = 2

Rows = dict[Row, bytes | None]


def commits(seed: int, count: int) -> list[Rows]:
    """What is committed: each of one to four rows, of up to a page and a half; a quarter of them are deletions."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        rows: Rows = {}
        for _ in range(rng.randint(1, 4)):
            size = rng.choice((0, 10, 300, 2500, 6000))
            body = f"{number}:".encode() + rng.randbytes(size)
            rows["kv", f"{rng.randrange(KEYS)}"] = None if rng.random() < 0.25 else body
        found.append(rows)
    return found


def state_after(seed: int, numbers: list[int]) -> Rows:
    """The rows that are there after these commits."""
    wanted: Rows = {}
    script = commits(seed, max(numbers, default=-1) + 1)
    for number in numbers:
        wanted.update(script[number])
    return {row: body for row, body in wanted.items() if body is not None}


def hurry() -> None:
    """All that happens seldom happens after a few commits."""
    storage.FOLDED_AT_BYTES = 6000
    storage.STEP_ROWS, storage.STEP_BYTES = 3, 4000
    storage.CHECKPOINTED_AT_PAGES = 16


def main(folder: Path, seed: int, first: int, end: int, *, close: bool) -> int:
    hurry()
    try:
        with Storage(folder) as disk:
            status = _write(disk, dict(list(enumerate(commits(seed, end)))[first:]))
            if not close:
                os._exit(status)
            return status
    except StorageFailed as error:
        return _failed(error)


def _write(disk: Storage, script: dict[int, Rows]) -> int:
    try:
        _say(f"open {disk.index}")
        for number, rows in script.items():
            _say(f"begun {number}")
            try:
                disk.commit(rows, number + FIRST_INDEX)
            except DiskFull:
                _say(f"refused {number}")
            else:
                _say(f"acked {number}")
    except StorageFailed as error:
        return _failed(error)
    return 0


def _failed(error: StorageFailed) -> int:
    _say(f"failed {error.message}")
    return error.exit_status


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(Path(given[0]), *map(int, given[1:4]), close=given[4:] != ["drop"]))
