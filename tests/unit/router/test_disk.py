from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec
import pytest

from milkrun.errors import DataPlaneError
from milkrun.router import disk


class Value(msgspec.Struct):
    number: int


def test_a_file_is_whole_private_and_synced_before_it_takes_its_place(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("sync"), sync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (steps.append("replace"), replace(path, to))[1])

    disk.write(tmp_path / "file", b"one")

    assert steps == ["sync", "replace", "sync"]
    assert disk.read(tmp_path / "file") == b"one"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    disk.write(tmp_path / "file", b"one")
    assert steps == ["sync", "replace", "sync"], "the same again costs no disk"


def test_a_failed_sync_keeps_the_former_content_and_is_an_error_of_ours(tmp_path, monkeypatch):
    disk.write(tmp_path / "file", b"one")

    def fails(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)

    with pytest.raises(DataPlaneError, match="Input/output error") as caught:
        disk.write(tmp_path / "file", b"two")
    assert caught.value.remedy
    assert disk.read(tmp_path / "file") == b"one"


@pytest.mark.parametrize("torn", [b"", b"{", b"\xff", b'{"number": "x"}', b"[" * 100_000, b"null"])
def test_what_cannot_be_understood_is_nothing(tmp_path, torn):
    (tmp_path / "file").write_bytes(torn)

    assert disk.load(tmp_path / "file", Value) is None


def test_what_was_kept_comes_back(tmp_path):
    assert disk.load(tmp_path / "file", Value) is None
    disk.write(tmp_path / "file", msgspec.json.encode(Value(7)))

    assert disk.load(tmp_path / "file", Value) == Value(7)
