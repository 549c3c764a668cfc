"""What a writer told of its commits, and whether a data directory holds exactly that."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from durability.writer import FIRST_INDEX, Rows, state_after

from milkrun.registry.storage import Storage


class Told:
    """Which commits are there for certain, and which one may be: told in the lines of one run after the other."""

    def __init__(self, seed: int, lines: list[str] | None = None) -> None:
        self.seed = seed
        self.there: list[int] = []
        self.open_question: int | None = None
        self.opened = 0
        self.refused: list[int] = []
        self.failed = ""
        for line in lines or []:
            self.hear(line)

    def hear(self, line: str) -> None:
        what, _, rest = line.partition(" ")
        match what:
            case "open":
                self._settle(int(rest) - FIRST_INDEX)
                self.opened += 1
            case "begun":
                self.open_question = int(rest)
            case "acked":
                self._settle(int(rest))
            case "refused":
                self.refused.append(int(rest))
                self.open_question = None
            case "failed":
                self.failed = rest
            case _:
                raise ValueError(line)

    def _settle(self, newest: int) -> None:
        """Somebody saw that the newest commit there is this one: so it has to stay."""
        if self.open_question == newest:
            self.there.append(newest)
        self.open_question = None
        assert newest == (self.there[-1] if self.there else 1 - FIRST_INDEX), "it opened with another state"

    def may_be(self) -> list[list[int]]:
        """Each way in which the disk may be: the commits that count."""
        maybe = [] if self.open_question is None else [[*self.there, self.open_question]]
        return [self.there, *maybe]


def held(disk: Storage) -> Rows:
    """All rows, by key."""
    found = disk._connection.execute("SELECT key FROM rows WHERE kind = 'kv'").fetchall()
    keys = {("kv", key) for (key,) in found} | {row for row, _ in disk._unfolded.items() if row[0] == "kv"}
    bodies = {row: disk._body(row) for row in keys}
    there = {row: body for row, body in bodies.items() if body is not None}
    assert sorted(there.values()) == sorted(body for _, body in disk.rows())
    return there


def assert_holds(folder: Path, told: Told) -> None:
    """The disk opens, holds what it may hold and nothing else, and can be written and opened again."""
    with Storage(folder) as disk:
        found = disk.index, held(disk)
        wanted = [(FIRST_INDEX + max(way, default=-1), state_after(told.seed, way)) for way in told.may_be()]
        assert any(found == (max(index, 1), rows) for index, rows in wanted), (
            f"the disk holds index {found[0]} and {sorted(found[1])};"
            f" told: {told.may_be()}, refused: {told.refused}, failed: {told.failed!r}"
        )
        disk.commit({("kv", "after"): b"1"}, found[0] + 1)
    with Storage(folder) as disk:
        assert (disk.index, held(disk)) == (found[0] + 1, {**found[1], ("kv", "after"): b"1"})
        assert _integrity(disk._connection) == "ok"


def _integrity(db: sqlite3.Connection) -> str:
    return str(db.execute("PRAGMA integrity_check").fetchone()[0])
