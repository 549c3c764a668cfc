"""`milkrun rollouts` that gets a signal from itself at chosen records of a journal, before or after they are stored.

    python mortal_engine.py FATE up                          an environment whose rollouts are somebody else's
    python mortal_engine.py FATE rollouts --host HOST ...    the engine

FATE is a file: {"signal": 9, "when": "before" or "after", "each": 1, "first": 0, "only": ""}. Of the records whose text
has `only` in it, those are chosen whose number, counted from 0, is `first` and then each `each`-th. A record that was
counted once, in this process or in one before, is not counted again: who dies at each of them comes to the end.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from milkrun.cli import main
from milkrun.rollout.state import Entry
from milkrun.rollout.store import Store
from milkrun.up import run
from milkrun.up.parts import Kind

_ANY = re.compile(r"[0-9a-f]{10}|[0-9.]+ s\b")
"""What is another text each time: commits, and times."""


class Fate:
    """Which records are chosen, remembered over deaths."""

    def __init__(self, path: Path) -> None:
        self._seen = path.with_suffix(".seen")
        told = json.loads(path.read_text())
        self.signal, self.when = told["signal"], told["when"]
        self._each, self._first, self._only = told["each"], told["first"], told["only"]

    def comes(self, entry: Entry) -> bool:
        """Whether this record is chosen; it is remembered before anything can happen."""
        name = _ANY.sub("...", f"{entry.kind} [{entry.step}] {entry.said}")
        seen = self._seen.read_text().splitlines() if self._seen.exists() else []
        if self._only not in name or name in seen:
            return False
        with self._seen.open("a") as file:
            file.write(f"{name}\n")
        return len(seen) >= self._first and (len(seen) - self._first) % self._each == 0


def mortal(fate: Fate) -> None:
    """The engine of this process meets its fate."""
    save = Store.save

    async def saved(self, service, *, state, journal, taken=(), history=None) -> None:
        due = bool(journal) and fate.comes(journal[-1])
        if due and fate.when == "before":
            os.kill(os.getpid(), fate.signal)
        await save(self, service, state=state, journal=journal, taken=taken, history=history)
        if due and fate.when == "after":
            os.kill(os.getpid(), fate.signal)

    Store.save = saved  # type: ignore[method-assign]


def without_engine() -> None:
    """`up` starts every part but the engine."""
    parts = run.parts
    run.parts = lambda *given: [part for part in parts(*given) if part.kind is not Kind.ROLLOUTS]


if __name__ == "__main__":
    fate_file = Path(sys.argv.pop(1))
    sys.argv[0] = "milkrun"
    if sys.argv[1] == "up":
        without_engine()
    else:
        mortal(Fate(fate_file))
    main()
