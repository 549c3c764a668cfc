"""The index, and what changed since the last commit: rows for the disk, topics for the watchers. Pure.

Every command that changes anything takes exactly one new index; one that changes nothing takes none.
"""

from __future__ import annotations

import msgspec

TOPICS_AT_MOST = 65_536

Row = tuple[str, str]
"""A row's kind and key."""

_encode = msgspec.msgpack.Encoder().encode


class Ledger:
    """`index` is the state's index, at least 1. `floor` is an index that no topic's index is below.

    A topic's own index is forgotten when there are too many of them and at a restart; its watchers then see
    the floor, which is not lower, and read the same data once more.
    """

    def __init__(self, index: int = 1) -> None:
        self.index = max(1, index)
        self.floor = self.index
        self.rows: dict[Row, bytes | None] = {}
        self.touched: set[str] = set()
        self.touched_keys: list[str] = []
        self._topics: dict[str, int] = {}
        self._bumped = False

    def begin(self) -> None:
        """The next command starts: its first change takes a new index."""
        self._bumped = False

    def ahead_of(self, index: int) -> None:
        """The next index is above this one too: it comes from a state whose watchers may be back."""
        self.index = max(self.index, index)

    @property
    def changed(self) -> bool:
        """Whether this command has changed anything."""
        return self._bumped

    @property
    def coming_index(self) -> int:
        """The index that this command's changes carry."""
        return self.index if self._bumped else self.index + 1

    def bump(self) -> int:
        """The index of this command, taken by its first change."""
        if not self._bumped:
            self._bumped = True
            self.index += 1
        return self.index

    def put(self, kind: str, key: str, row: object) -> None:
        """The row is to be written at the next commit."""
        self.bump()
        self.rows[kind, key] = _encode(row)

    def drop(self, kind: str, key: str) -> None:
        """The row is to be deleted at the next commit."""
        self.bump()
        self.rows[kind, key] = None

    def touch(self, *topics: str) -> None:
        """The topics' index is this command's, and their watchers wake at the next commit."""
        index = self.bump()
        self.touched.update(topics)
        for topic in topics:
            self._topics[topic] = index
        if len(self._topics) > TOPICS_AT_MOST:
            self.floor = index
            self._topics.clear()

    def at(self, topic: str) -> int:
        """The index at which the topic last changed, or a later one."""
        return self._topics.get(topic, self.floor)

    def take(self) -> tuple[dict[Row, bytes | None], set[str], list[str]]:
        """The rows, topics and keys that changed since the last call."""
        taken = self.rows, self.touched, self.touched_keys
        self.rows, self.touched, self.touched_keys = {}, set(), []
        return taken
