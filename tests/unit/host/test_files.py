"""A file is whole, or as it was."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from milkrun.host import files


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a"
    files.replace(path, b"one")
    files.replace(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_umask_counts_as_for_any_program(tmp_path):
    before = os.umask(0o027)
    try:
        files.replace(tmp_path / "a", b"", mode=0o666)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("write", [files.replace, files.create])
def test_what_cannot_be_written_changes_nothing_and_leaves_nothing(tmp_path, monkeypatch, write):
    path = tmp_path / "a"
    if write is files.replace:
        path.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, b"new")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([b"old"] if write is files.replace else [])


def test_the_file_and_its_name_are_synced_in_this_order(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        files.os,
        "fsync",
        lambda opened: (synced.append(str(Path(f"/proc/self/fd/{opened}").readlink())), real(opened)),
    )
    files.replace(tmp_path / "a", b"1")
    assert synced[0].startswith(str(tmp_path / ".a."))
    assert synced[1:] == [str(tmp_path)]


def test_a_file_is_created_once(tmp_path):
    path = tmp_path / "a"

    def create(number: int) -> bool:
        try:
            files.create(path, str(number).encode())
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(create, range(64)))
    assert sum(done) == 1
    assert path.read_bytes() == str(done.index(True)).encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_symlink_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    (tmp_path / "a").symlink_to(target)
    files.replace(tmp_path / "a", b"new")
    assert target.read_bytes() == b"kept"
    assert not (tmp_path / "a").is_symlink()
