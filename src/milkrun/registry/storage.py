"""The rows on the disk: SQLite, one connection, write-ahead log, every commit synced before it counts.

A commit appends one record to a log table, which touches two pages however many rows it has; rows changed in
place would touch a page each. When the log has grown it is folded into the rows, in one transaction.

`synchronous=FULL` and one single connection are not tuning: the first makes a commit durable, the second
keeps clear of SQLite's WAL-reset fault (3.7.0 to 3.51.2), which needs two.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import msgspec

from milkrun.errors import Conflict, InputRefused, MilkrunError, StorageFailed
from milkrun.registry.ledger import Row

FOLDED_AT_BYTES = 512 * 1024

_FORMAT = 2
_INDEX: Row = ("meta", "index")
_PAGES_AT_MOST = 2**32 - 2

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, str, bytes | None]]).decode


class DiskFull(MilkrunError):
    """There is no room for these writes; what was there before stays."""

    code = "disk-full"


class Storage:
    """The rows of one data directory, which no other registry can open meanwhile."""

    def __init__(self, folder: Path, *, pages_at_most: int = _PAGES_AT_MOST) -> None:
        self.folder = folder
        self._pages_at_most = pages_at_most
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self._logged: dict[Row, bytes | None] = {}
        self._log_bytes = 0

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageFailed(
                f"the data directory {self.folder} cannot be used: {error.strerror}",
                remedy="choose another one with --data DIR",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Conflict(
                f"another registry already uses the data directory {self.folder}",
                remedy="stop it (`milkrun down`), or give this one its own with --data DIR",
            ) from error
        try:
            self._db = self._open()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        if self._lock is not None:
            os.close(self._lock)

    @property
    def index(self) -> int:
        """The index of the last commit, 1 when there was none."""
        found = self._body(_INDEX)
        return int(found) if found else 1

    def meta(self, name: str, default: str) -> str:
        """A fact about this registry itself; `default` is kept when there is none yet."""
        row = ("meta", name)
        found = self._body(row)
        if found is None:
            self._append({row: default.encode()})
        return default if found is None else found.decode()

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """The kind and body of every row."""
        for kind, key, body in self._connection.execute(
            "SELECT kind, key, body FROM rows WHERE kind <> 'meta'"
        ):
            if (kind, key) not in self._logged:
                yield kind, body
        for (kind, _), body in self._logged.items():
            if body is not None and kind != "meta":
                yield kind, body

    def commit(self, rows: Mapping[Row, bytes | None], index: int) -> None:
        """The rows (None: no such row) and the index are on the disk, all of them.

        Raises DiskFull when none of them is, and StorageFailed when that cannot be known: then nothing may be
        answered from memory any more.
        """
        self._append({**rows, _INDEX: str(index).encode()})

    def _body(self, row: Row) -> bytes | None:
        if row in self._logged:
            return self._logged[row]
        found = self._connection.execute("SELECT body FROM rows WHERE kind = ? AND key = ?", row).fetchone()
        return bytes(found[0]) if found else None

    def _append(self, rows: Mapping[Row, bytes | None]) -> None:
        record = _encode([(*row, body) for row, body in rows.items()])
        with self._all_or_nothing():
            self._connection.execute("INSERT INTO log (body) VALUES (?)", (record,))
        self._logged.update(rows)
        self._log_bytes += len(record)
        if self._log_bytes > FOLDED_AT_BYTES:
            with contextlib.suppress(DiskFull):  # the log holds it all: the next commit tries again
                self._fold()

    def _fold(self) -> None:
        """What the log holds is in the rows, and the log is empty."""
        rows = sorted(self._logged.items())
        with self._all_or_nothing():
            db = self._connection
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM log")
            db.executemany(
                "INSERT OR REPLACE INTO rows (kind, key, body) VALUES (?, ?, ?)",
                [(*row, body) for row, body in rows if body is not None],
            )
            db.executemany(
                "DELETE FROM rows WHERE kind = ? AND key = ?",
                [row for row, body in rows if body is None],
            )
            db.execute("COMMIT")
        self._logged = {}
        self._log_bytes = 0

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """What is written inside is on the disk. Raises DiskFull when nothing of it is, else StorageFailed."""
        try:
            yield
        except sqlite3.Error as error:
            # Errors of the module itself, as on a closed database, have no code.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
                raise self._failed(error) from error
            try:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            except sqlite3.Error as second:
                raise self._failed(second) from second
            raise DiskFull(
                f"the disk of {self.folder} is full: nothing was written",
                remedy="make room there; reads go on, writes are taken again as soon as they fit",
            ) from error

    def _open(self) -> sqlite3.Connection:
        path = self.folder / "registry.db"
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA max_page_count = {self._pages_at_most:d}")
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, 1, _FORMAT):
                raise InputRefused(
                    f"{path} was written by a newer milkrun (format {found})",
                    remedy="start that version, or choose another data directory with --data DIR",
                )
            db.execute(
                "CREATE TABLE IF NOT EXISTS rows (kind TEXT, key TEXT, body BLOB, PRIMARY KEY (kind, key))"
                " WITHOUT ROWID"
            )
            db.execute("CREATE TABLE IF NOT EXISTS log (place INTEGER PRIMARY KEY, body BLOB)")
            db.execute(f"PRAGMA user_version = {_FORMAT}")
            for (record,) in db.execute("SELECT body FROM log ORDER BY place"):
                self._log_bytes += len(record)
                self._logged.update(((kind, key), body) for kind, key, body in _decode(record))
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return db

    def _failed(self, error: sqlite3.Error) -> StorageFailed:
        return StorageFailed(
            f"the registry's data in {self.folder} cannot be written or read: {error}",
            remedy="check the disk (dmesg, df), then start it again: it recovers all that it acknowledged",
        )

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise RuntimeError("use `with Storage(...)`")
        return self._db
