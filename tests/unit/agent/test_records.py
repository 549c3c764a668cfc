import os

import msgspec
import pytest

from milkrun.agent.plan import Slot
from milkrun.agent.records import Record, Records
from milkrun.errors import MilkrunError
from milkrun.host.process import Identity
from milkrun.settings.service import ServiceSettings

RECORD = Record(
    instance="goat-1-meadow-8101", slot=Slot("goat", "1", 0), address="127.0.0.1", port=8101, log="/log",
    settings=ServiceSettings(command=["goat"]), identity=Identity(pid=5, ticks=6, boot="b"),
)  # fmt: skip


def test_what_is_saved_is_loaded_until_it_is_removed(tmp_path):
    records = Records(tmp_path)
    records.save(RECORD)
    newer = msgspec.structs.replace(RECORD, stopping="git asks for 0")
    records.save(newer)
    assert Records(tmp_path).load() == [newer]
    records.remove(RECORD.instance)
    records.remove(RECORD.instance)
    assert records.load() == []


def test_a_record_is_replaced_as_a_whole(tmp_path):
    """Whoever reads meanwhile, or finds the disk after a crash, has the old one or the new one, never a half."""
    records = Records(tmp_path)
    records.save(RECORD)
    with (tmp_path / "units" / f"{RECORD.instance}.json").open("rb") as reader:
        records.save(msgspec.structs.replace(RECORD, stopping="git asks for 0"))
        assert msgspec.json.decode(reader.read(), type=Record) == RECORD


def test_a_broken_record_is_put_aside_and_the_others_are_read(tmp_path):
    records = Records(tmp_path)
    records.save(RECORD)
    (tmp_path / "units" / "half.json").write_text('{"instance": "ha')
    (tmp_path / "units" / "torn.tmp").write_text("{")
    assert records.load() == [RECORD]
    assert (tmp_path / "units" / "half.broken").exists()


def test_a_failed_write_keeps_the_old_record_and_says_why(tmp_path, monkeypatch):
    records = Records(tmp_path)
    records.save(RECORD)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MilkrunError, match="No space left on device"):
            records.save(msgspec.structs.replace(RECORD, stopping="x"))
    assert records.load() == [RECORD]
