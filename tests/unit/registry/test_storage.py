from __future__ import annotations

import itertools
import sqlite3
import stat

import pytest

from milkrun.errors import Conflict, InputRefused, StorageFailed
from milkrun.registry.storage import FOLDED_AT_BYTES, STEP_ROWS, STEP_ROWS_AT_MOST, DiskFull, Storage


def test_what_was_committed_is_there_again(tmp_path):
    with Storage(tmp_path / "data") as storage:
        assert (storage.index, list(storage.rows())) == (1, [])
        storage.commit({("kv", "a"): b"1", ("kv", "b"): b"2"}, 7)
        storage.commit({("kv", "a"): None, ("kv", "b"): b"3", ("node", "b"): b"4"}, 9)
    with Storage(tmp_path / "data") as storage:
        assert storage.index == 9
        assert sorted(storage.rows()) == [("kv", b"3"), ("node", b"4")]


def test_a_fact_about_the_registry_is_kept_from_its_first_start(tmp_path):
    with Storage(tmp_path) as storage:
        assert storage.meta("node-id", "first") == "first"
    with Storage(tmp_path) as storage:
        assert storage.meta("node-id", "second") == "first"


def test_nobody_else_may_read_it(tmp_path):
    with Storage(tmp_path / "data") as storage:
        storage.commit({("kv", "a"): b"1"}, 2)
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        for file in (tmp_path / "data").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_commits_are_synced_and_held_by_one_connection(tmp_path):
    with Storage(tmp_path) as storage:
        pragma = {
            name: storage._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "locking_mode")
        }
        storage.commit({("kv", "a"): b"1"}, 2)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            sqlite3.connect(tmp_path / "registry.db", timeout=0).execute("SELECT * FROM rows")
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}


def test_a_second_registry_on_the_same_data_is_refused(tmp_path):
    with (
        Storage(tmp_path),
        pytest.raises(Conflict, match="another registry already uses") as refused,
        Storage(tmp_path),
    ):
        pass
    assert "milkrun down" in refused.value.remedy
    with Storage(tmp_path):
        pass


def test_a_folder_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot be used") as refused, Storage(tmp_path / "file" / "data"):
        pass
    assert "--data" in refused.value.remedy


def test_a_file_that_is_no_database_says_so(tmp_path):
    (tmp_path / "registry.db").write_text("not a database " * 100)
    with pytest.raises(StorageFailed, match="not a database"), Storage(tmp_path):
        pass


def test_data_of_a_newer_format_is_left_alone(tmp_path):
    with Storage(tmp_path) as storage:
        storage._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputRefused, match="newer milkrun"), Storage(tmp_path):
        pass


def test_a_full_disk_writes_nothing_and_takes_what_fits_later(tmp_path):
    with Storage(tmp_path, pages_at_most=20) as storage:
        storage.commit({("kv", "a"): b"1"}, 2)
        with pytest.raises(DiskFull, match="is full: nothing was written"):
            storage.commit({("kv", "b"): b"small", ("kv", "c"): b"x" * 200_000}, 3)
        assert (storage.index, list(storage.rows())) == (2, [("kv", b"1")])
        storage.commit({("kv", "b"): b"2"}, 3)
    with Storage(tmp_path) as storage:
        assert (storage.index, list(storage.rows())) == (3, [("kv", b"1"), ("kv", b"2")])


def fill(storage, acknowledged):
    for index in range(3, 10_000):
        storage.commit({("kv", f"{index}"): b"x" * 3000}, index)
        acknowledged.append(index)


def tables(storage):
    return [
        storage._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("rows", "log")
    ]


def test_a_log_that_has_grown_is_folded_into_the_rows_and_nothing_is_lost_or_comes_back(tmp_path):
    wanted = {}
    big = FOLDED_AT_BYTES // 8
    with Storage(tmp_path) as storage:
        for number in range(20):
            rows = {("kv", f"{number % 7}"): bytes([number]) * big, ("kv", f"{(number + 3) % 7}"): None}
            storage.commit(rows, number + 2)
            wanted.update(rows)
            assert tables(storage)[1] < 9
        assert sorted(storage.rows()) == sorted(("kv", body) for body in wanted.values() if body is not None)
        assert min(tables(storage)) > 0, "some rows are folded, some are not: the test shows both"
    with Storage(tmp_path) as storage:
        assert storage.index == 21
        assert sorted(storage.rows()) == sorted(("kv", body) for body in wanted.values() if body is not None)
        storage.commit(dict.fromkeys(wanted), 22)
        for index in range(23, 43):
            storage.commit({("kv", "z"): b"z" * big}, index)
        assert list(storage.rows()) == [("kv", b"z" * big)]


def test_a_disk_without_room_to_fold_takes_writes_until_it_has_none_for_them(tmp_path):
    with Storage(tmp_path) as storage:
        storage.commit({("kv", "a"): b"1"}, 2)
        used = storage._connection.execute("PRAGMA page_count").fetchone()[0]
    with Storage(tmp_path, pages_at_most=used + FOLDED_AT_BYTES // 3000 + 8) as storage:
        acknowledged = [2]
        with pytest.raises(DiskFull):
            fill(storage, acknowledged)
        held = sorted(storage.rows())
        assert len(held) == len(acknowledged)
        assert storage.index == acknowledged[-1]
        assert tables(storage)[1] * 3000 > FOLDED_AT_BYTES, "it could not fold"
    with Storage(tmp_path) as storage:
        assert sorted(storage.rows()) == held
        storage.commit({("kv", f"{index}"): None for index in acknowledged[1:]}, 10_000)
        assert list(storage.rows()) == [("kv", b"1")]


def test_rows_of_the_first_format_are_read(tmp_path):
    with sqlite3.connect(tmp_path / "registry.db") as old:
        old.execute(
            "CREATE TABLE rows (kind TEXT, key TEXT, body BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )
        old.execute("INSERT INTO rows VALUES ('kv', 'a', X'31'), ('meta', 'index', X'37')")
        old.execute("PRAGMA user_version = 1")
    old.close()
    with Storage(tmp_path) as storage:
        assert (storage.index, list(storage.rows())) == (7, [("kv", b"1")])
        storage.commit({("kv", "a"): None}, 8)
        assert list(storage.rows()) == []


def test_a_log_that_cannot_be_read_says_so(tmp_path):
    with Storage(tmp_path) as storage:
        storage._connection.execute("INSERT INTO log (body) VALUES (X'c1')")
    with pytest.raises(StorageFailed, match="cannot be written or read"), Storage(tmp_path):
        pass


def test_no_commit_folds_more_of_a_grown_log_than_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr("milkrun.registry.storage.FOLDED_AT_BYTES", 1000)
    rows = {("kv", f"{number:04}"): b"x" * 20 for number in range(2 * STEP_ROWS_AT_MOST)}
    with Storage(tmp_path) as storage:
        storage.commit(rows, 2)
        folded = [tables(storage)[0]]
        while tables(storage)[1]:
            storage.commit({("kv", "one"): b"1"}, 3)
            folded.append(tables(storage)[0])
        steps = [later - before for before, later in itertools.pairwise(folded)]
        assert folded[0] <= STEP_ROWS_AT_MOST
        assert len(steps) >= 8
        assert max(steps) <= STEP_ROWS
        assert len(list(storage.rows())) == len(rows) + 1
