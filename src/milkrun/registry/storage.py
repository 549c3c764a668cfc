"""The rows on the disk: SQLite, one connection, write-ahead log, every commit synced before it counts.

A commit appends one record to a log table, which touches two pages however many rows it has; rows changed in
place would touch a page each. A log that has grown is folded into the rows, with each commit a step, so that no
writer waits for all of it.

`synchronous=FULL` and one single connection are not tuning: the first makes a commit durable, the second
keeps clear of SQLite's WAL-reset fault (3.7.0 to 3.51.2), which needs two. Checkpoints are asked for here, because
SQLite passes over the errors of those that it makes by itself, and a failed sync has to end the process.
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
from milkrun.host.files import sync
from milkrun.registry.ledger import Row
from milkrun.registry.unfolded import Unfolded

FOLDED_AT_BYTES = 512 * 1024
STEP_ROWS, STEP_ROWS_AT_MOST = 256, 2048
STEP_BYTES = 512 * 1024
CHECKPOINTED_AT_PAGES = 500
"""About so many pages in the write-ahead log are copied to their places at once: a few milliseconds of a writer."""

_FORMAT = 2
_INDEX: Row = ("meta", "index")
_ROOM = ("meta", "room")
_PAGES_AT_MOST = 2**32 - 2
_PAGE_BYTES = 4096
_PIECE_BYTES = 1 << 20

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, str, bytes | None]]).decode

_FILE = "registry.db"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_TABLES = (
    "BEGIN IMMEDIATE",
    "CREATE TABLE IF NOT EXISTS rows (kind TEXT, key TEXT, body BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS log (place INTEGER PRIMARY KEY, body BLOB)",
    f"PRAGMA user_version = {_FORMAT}",
    "COMMIT",
)


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
        self._unfolded = Unfolded()
        self._pages_in_wal = 0

    def __enter__(self) -> Self:
        try:
            _make(self.folder)
            self._lock = os.open(self.folder / "lock", _CREATE, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(self.folder / _FILE, _CREATE, 0o600))
            self._open()
            sync(self.folder)  # SQLite does it too, and passes over its errors: its files would be gone
        except BlockingIOError as error:
            self.__exit__()
            raise Conflict(
                f"another registry already uses the data directory {self.folder}",
                remedy="stop it (`milkrun down`), or give this one its own with --data DIR",
            ) from error
        except OSError as error:
            self.__exit__()
            raise StorageFailed(
                f"the data directory {self.folder} cannot be used: {error.strerror}",
                remedy="choose another one with --data DIR",
            ) from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

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
            if (kind, key) not in self._unfolded:
                yield kind, body
        for (kind, _), body in self._unfolded.items():
            if body is not None and kind != "meta":
                yield kind, body

    def commit(self, rows: Mapping[Row, bytes | None], index: int) -> None:
        """The rows (None: no such row) and the index are on the disk, all of them.

        Raises DiskFull when none of them is, and StorageFailed when that cannot be known: then nothing may be
        answered from memory any more.
        """
        self._append({**rows, _INDEX: str(index).encode()})

    def probe(self, size: int) -> None:
        """So many bytes fit on the disk, seen by writing them. Raises DiskFull when they do not."""
        self._append({_ROOM: bytes(size)})
        self._append({_ROOM: None})

    def _body(self, row: Row) -> bytes | None:
        if row in self._unfolded:
            return self._unfolded[row]
        found = self._connection.execute("SELECT body FROM rows WHERE kind = ? AND key = ?", row).fetchone()
        return bytes(found[0]) if found else None

    def _append(self, rows: Mapping[Row, bytes | None]) -> None:
        record = _encode([(*row, body) for row, body in rows.items()])
        with self._all_or_nothing():
            cursor = self._connection.execute("INSERT INTO log (body) VALUES (?)", (record,))
        self._unfolded.add(cursor.lastrowid or 0, rows, len(record))
        self._pages_in_wal += 2 + len(record) // _PAGE_BYTES
        # Without room for these two the log holds it all, and the next commit tries again.
        if self._unfolded.size > FOLDED_AT_BYTES:
            with contextlib.suppress(DiskFull):
                # More than came in, so that the log shrinks.
                self._fold(
                    min(STEP_ROWS_AT_MOST, max(STEP_ROWS, 2 * len(rows))), 2 * len(record) + STEP_BYTES
                )
        if self._pages_in_wal > CHECKPOINTED_AT_PAGES:
            with contextlib.suppress(DiskFull):
                self._checkpoint()

    def _fold(self, rows_at_most: int, bytes_at_most: int) -> None:
        """The oldest rows of the log are in their places."""
        step = self._unfolded.next(rows_at_most, bytes_at_most)
        with self._all_or_nothing():
            db = self._connection
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM log WHERE place <= ?", (step.emptied,))
            db.executemany(
                "INSERT OR REPLACE INTO rows (kind, key, body) VALUES (?, ?, ?)",
                [(*row, body) for row, body in step.rows if body is not None],
            )
            db.executemany(
                "DELETE FROM rows WHERE kind = ? AND key = ?",
                [row for row, body in step.rows if body is None],
            )
            db.execute("COMMIT")
        self._unfolded.done(step)
        self._pages_in_wal += len(step.rows) + 2

    def _checkpoint(self) -> None:
        """What the write-ahead log holds is synced in its place, and the log is written from its start again."""
        self._pages_in_wal = 0
        with self._all_or_nothing():
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

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

    def _open(self) -> None:
        path = self.folder / _FILE
        try:
            # A process that was killed may have left commits that were never synced, and a failed sync some that
            # are in the system's cache alone, from where no sync takes them: they are written and synced before
            # anybody sees them, and before a checkpoint counts on them.
            _write_again(path.with_name(f"{_FILE}-wal"))
            self._db = db = sqlite3.connect(path, isolation_level=None)
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # Read to its end, or what goes wrong in it is not told: there would be no write-ahead log.
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute(f"PRAGMA max_page_count = {self._pages_at_most:d}")
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, 1, _FORMAT):
                raise InputRefused(
                    f"{path} was written by a newer milkrun (format {found})",
                    remedy="start that version, or choose another data directory with --data DIR",
                )
            if found != _FORMAT:  # else nothing is written: a full disk can still be opened and read
                for statement in _TABLES:
                    db.execute(statement)
            for place, record in db.execute("SELECT place, body FROM log ORDER BY place"):
                rows = {(kind, key): body for kind, key, body in _decode(record)}
                self._unfolded.add(place, rows, len(record))
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StorageFailed:
        return StorageFailed(
            f"the registry's data in {self.folder} cannot be written or read: {error}",
            remedy="check the disk (dmesg, df), then start it again: it recovers all that it acknowledged",
        )

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise RuntimeError("use `with Storage(...)`")
        return self._db


def _make(folder: Path) -> None:
    """The folder is there, for its owner alone, and a power cut does not take it away."""
    missing = [each for each in folder.parents if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for each in [folder, *missing]:
        with contextlib.suppress(PermissionError):  # a folder above that we may not read was there before us
            sync(each.parent)


def _write_again(path: Path) -> None:
    """What the system says that the file holds is what the disk holds."""
    if not path.exists():
        return
    opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        at = 0
        while piece := os.pread(opened, _PIECE_BYTES, at):
            at += os.pwrite(opened, piece, at)
        os.fsync(opened)
    finally:
        os.close(opened)
