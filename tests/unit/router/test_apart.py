from __future__ import annotations

import os

import msgspec
import pytest

from milkrun.host.process import Identity, identity
from milkrun.router.apart import remembered


def test_what_was_written_down_is_remembered(tmp_path):
    known = Identity(pid=5, ticks=6, boot="b")
    (tmp_path / "process.json").write_bytes(msgspec.json.encode(known))
    assert remembered(tmp_path / "process.json") == known


def test_what_a_former_router_wrote_down_is_the_same_process(tmp_path):
    me = identity(os.getpid())
    assert me
    file = tmp_path / "process.json"
    file.write_bytes(msgspec.json.encode({"pid": me.pid, "started": me.ticks}))
    assert remembered(file) == me
    file.write_bytes(msgspec.json.encode({"pid": me.pid, "started": me.ticks - 1}))
    assert remembered(file) is None


@pytest.mark.parametrize("text", [None, "{", "[]", '{"pid": 1}', '{"pid": 1, "ticks": 2}'])
def test_nothing_that_can_be_understood_is_nobody(tmp_path, text):
    file = tmp_path / "process.json"
    if text is not None:
        file.write_text(text)
    assert remembered(file) is None
