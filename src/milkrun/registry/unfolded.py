"""What the log on the disk holds and the rows do not hold yet: the oldest record is folded first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from milkrun.registry.ledger import Row

_NOWHERE = (0, None)


class Step(NamedTuple):
    """So much of the log can go to the rows at once."""

    rows: list[tuple[Row, bytes | None]]
    """What the rows are to hold (None: no such row), in the order in which the disk keeps them."""
    emptied: int
    """The records up to this place of the log hold nothing else then; 0 when that is none of them."""
    looked_at: int
    """How many rows of the record after these were looked at."""


class _Record:
    def __init__(self, place: int, rows: tuple[Row, ...], size: int) -> None:
        self.place = place
        self.rows = rows
        self.size = size
        self.looked_at = 0


class Unfolded:
    """The log's records, which stay in the log until all of their rows are folded.

    So a restart at any point finds the same: the rows, and over them the log.
    """

    def __init__(self) -> None:
        self._records: deque[_Record] = deque()
        self._newest: dict[Row, tuple[int, bytes | None]] = {}
        self.size = 0
        """The bytes of all records."""

    def add(self, place: int, rows: Mapping[Row, bytes | None], size: int) -> None:
        """The log holds these rows at this place, which is above all others, in so many bytes."""
        self._records.append(_Record(place, tuple(rows), size))
        self._newest.update((row, (place, body)) for row, body in rows.items())
        self.size += size

    def __contains__(self, row: Row) -> bool:
        return row in self._newest

    def __len__(self) -> int:
        return len(self._newest)

    def __getitem__(self, row: Row) -> bytes | None:
        """The row's body, None when it was deleted; it must be here."""
        return self._newest[row][1]

    def items(self) -> Iterator[tuple[Row, bytes | None]]:
        """Each row and its body, None when it was deleted."""
        return ((row, body) for row, (_, body) in self._newest.items())

    def next(self, rows_at_most: int, bytes_at_most: int) -> Step:
        """The oldest rows, without those that a later record writes again; one at least, however large."""
        rows: list[tuple[Row, bytes | None]] = []
        size = emptied = 0
        for record in self._records:
            for at in range(record.looked_at, len(record.rows)):
                if len(rows) >= rows_at_most or size >= bytes_at_most:
                    return Step(sorted(rows), emptied, at)
                place, body = self._newest.get(record.rows[at], _NOWHERE)
                if place == record.place:
                    rows.append((record.rows[at], body))
                    size += len(body or b"")
            emptied = record.place
        return Step(sorted(rows), emptied, 0)

    def done(self, step: Step) -> None:
        """The step, the last one that was asked for, is on the disk."""
        while self._records and self._records[0].place <= step.emptied:
            self.size -= self._records.popleft().size
        if self._records:
            self._records[0].looked_at = step.looked_at
        for row, _ in step.rows:
            del self._newest[row]
