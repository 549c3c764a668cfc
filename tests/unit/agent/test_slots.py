import base64

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from milkrun.agent import slots
from milkrun.agent.plan import Holder, Slot
from milkrun.consul import keys, wire


def pair(key, value=b"", session=None):
    entry = {"Key": key, "Value": base64.b64encode(value).decode(), "Session": session}
    return msgspec.convert(entry, wire.Pair)


def test_a_held_slot_is_read():
    value = b'{"host":"meadow","instance":"goat-1"}'
    assert slots.read([pair("milkrun/slots/goat/0.0.1+b/3", value, "s1")]) == {
        Slot("goat", "0.0.1+b", 3): Holder(session="s1", host="meadow", instance="goat-1")
    }


def test_a_lock_counts_whatever_is_written_in_it():
    for value in (b"{", b'{"host": "\xff"}', b"[" * 100_000):  # no JSON, no UTF-8, no end of nesting
        assert slots.read([pair("milkrun/slots/goat/1/0", value, "s1")])[Slot("goat", "1", 0)].session == "s1"
    assert slots.read([pair("milkrun/slots/goat/1/0")])[Slot("goat", "1", 0)].session == ""


@given(st.text())
def test_keys_that_name_no_slot_are_passed_over(rest):
    for slot in slots.read([pair(keys.SLOTS + rest)]):
        assert keys.slot(slot.service, slot.version, slot.number) == keys.SLOTS + rest or rest[-2:-1] in "0/"


def test_strange_keys():
    for rest in (
        "",
        "goat",
        "goat/1",
        "goat/1/",
        "goat/1/-1",
        "goat/1/x",
        "GOAT/1/0",
        "goat/1/0/2",
        "goat/1/²",
    ):
        assert slots.read([pair(keys.SLOTS + rest)]) == {}, rest
