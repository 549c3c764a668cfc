from __future__ import annotations

import hashlib
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.registry import archive, commands, snapshot, topics
from milkrun.registry.nouns import Check, CheckSpec, Node, Service
from milkrun.registry.snapshot import FIRST_LINE, on_node, pack, unpack
from milkrun.registry.state import Machine


def shown(machine):
    """All that there is, without its indexes."""
    whole = msgspec.to_builtins(machine.whole())

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("CreateIndex", "ModifyIndex", "index")}
        return [plain(each) for each in value] if isinstance(value, list) else value

    return plain(whole)


@pytest.fixture
def farm(bench, goat):
    """A bench with one of everything."""
    bench.do(commands.KvPut("a", b"1"))
    bench.do(commands.KvPut("b", b"\x00\xff", 2**64 - 1))
    spec = CheckSpec(check_id="service:goat-1", name="ttl", service_id="goat-1", status="passing", ttl_s=10)
    bench.do(commands.RegisterService(goat(tags=["v1"], port=80), [spec]))
    far = Node(node="far", address="10.0.0.9")
    check = Check(node="far", check_id="c", name="c", status="passing", service_id="db")
    bench.do(commands.CatalogRegister("far", far, Service(id="db", service="db"), [check]))
    bench.do(commands.KvLock("lock", b"mine", 0, bench.session(1)))
    return bench


def taken(bench):
    return unpack(pack(bench.machine.whole()))


def spoil(bench):
    """Everything is another one than it was."""
    bench.do(commands.KvPut("a", b"2"))
    bench.do(commands.KvDelete("b"))
    bench.do(commands.KvPut("new", b"3"))
    bench.do(commands.DeregisterService("goat-1"))
    bench.do(commands.CatalogDeregister("far"))
    bench.do(commands.CatalogRegister("newer", Node(node="newer", address="10.0.0.8"), None, []))
    bench.do(commands.DestroySession("00000001-0000-0000-0000-000000000000"))
    bench.do(commands.KvLock("new", b"mine", 0, bench.session(2)))


def test_a_restore_brings_everything_back_under_one_new_index(farm):
    file, before = taken(farm), shown(farm.machine)
    spoil(farm)
    index = farm.machine.ledger.index
    farm.do(commands.Restore(file))
    assert shown(farm.machine) == before
    assert farm.machine.ledger.index == index + 1
    assert farm.machine.kv.get("a").modify_index == index + 1


def test_what_was_restored_is_on_the_disk(farm):
    file, before = taken(farm), shown(farm.machine)
    spoil(farm)
    farm.do(commands.Restore(file))
    farm.restart()
    assert shown(farm.machine) == before


def test_a_restore_of_what_is_there_changes_nothing(farm):
    file, index = taken(farm), farm.machine.ledger.index
    farm.do(commands.Restore(file))
    assert (farm.machine.ledger.index, farm.wrote, farm.touched, farm.touched_keys) == (index, 0, set(), [])


def test_exactly_the_watchers_of_what_changes_wake(farm):
    file = taken(farm)
    farm.do(commands.KvPut("a", b"2"))
    farm.do(commands.DeregisterService("goat-1"))
    farm.do(commands.Restore(file))
    assert farm.touched_keys == ["a"]
    assert {topics.service("goat"), topics.SERVICES, topics.node("n1")} <= farm.touched
    assert topics.service("db") not in farm.touched


def test_a_new_registry_goes_on_above_the_index_that_watchers_saw(farm):
    file = taken(farm)
    machine = Machine("n1")
    machine.apply(commands.Restore(file), 0.0)
    assert machine.ledger.index > file.index
    assert machine.kv.index_of("a") > file.index


def test_clocks_start_anew(farm):
    file = taken(farm)
    spoil(farm)
    farm.later(60)
    farm.do(commands.Restore(file))
    farm.later(9)
    assert farm.checks("goat") == {"service:goat-1": "passing"}
    assert farm.machine.kv.get("lock").session
    farm.later(12)
    assert farm.checks("goat") == {"service:goat-1": "critical"}
    assert farm.machine.kv.get("lock").session is msgspec.UNSET


def test_a_session_that_came_later_ends_with_its_lock_delay(farm):
    file = taken(farm)
    later = farm.session(2, lock_delay=5_000_000_000)
    farm.do(commands.KvLock("a", b"later", 0, later))
    farm.do(commands.Restore(file))
    assert farm.machine.kv.get("a").value == b"1"
    assert "a" in farm.machine.sessions.delayed


def test_on_another_host_its_node_has_what_the_old_one_had(farm):
    machine = Machine("n2")
    own = Node(id="00000000-0000-0000-0000-000000000002", node="n2", address="10.0.0.2")
    machine.apply(commands.Announce(own), 0.0)
    machine.apply(commands.Restore(on_node(taken(farm), "n2")), 0.0)
    assert set(machine.catalog.nodes) == {"n2", "far"}
    assert machine.catalog.nodes["n2"].address == "10.0.0.2"
    assert set(machine.catalog.services["n2"]) == {"consul", "goat-1"}
    assert [each.node for each in machine.sessions.live.values()] == ["n2"]
    machine.apply(commands.ReportCheck("service:goat-1", "warning", "hm"), 0.0)
    assert machine.catalog.checks["n2"]["service:goat-1"].status == "warning"


@given(st.data())
def test_a_damaged_file_is_refused(data):
    file = pack(Machine("n1").whole())
    place = data.draw(st.integers(0, len(file) - 1))
    flipped = file[:place] + bytes([file[place] ^ data.draw(st.integers(1, 255))]) + file[place + 1 :]
    for damaged in (flipped, file[:place], file + b"x"):
        with pytest.raises(InputRefused, match="nothing was changed"):
            unpack(damaged)


@pytest.mark.parametrize("file", [b"", b"hello", b"\x1f\x8b\x08\x00 a Consul snapshot is gzip"])
def test_a_foreign_file_is_refused(file):
    with pytest.raises(InputRefused, match="no snapshot of a Milkrun registry"):
        unpack(file)


def of_first_format(body):
    packed = zlib.compress(body)
    return FIRST_LINE + hashlib.sha256(packed).digest() + packed


def of_now(body):
    return archive.packed({"meta.json": b"{}", "state.bin": FIRST_LINE + body})


@pytest.mark.parametrize("signed", [of_first_format, of_now])
@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"node": "n1"})])
def test_what_is_no_state_is_refused(body, signed):
    with pytest.raises(InputRefused, match="cannot be read"):
        unpack(signed(body))


@pytest.mark.parametrize("files", [{}, {"state.bin": b"Consul's own"}, {"meta.json": b"{}"}])
def test_an_archive_without_a_state_of_ours_is_refused(files):
    with pytest.raises(InputRefused, match="holds no state"):
        unpack(archive.packed(files))


def test_a_file_of_the_first_format_is_still_read(farm):
    whole = farm.machine.whole()
    assert unpack(of_first_format(msgspec.msgpack.encode(whole))) == whole


def test_a_damaged_file_of_the_first_format_is_refused(farm):
    file = of_first_format(msgspec.msgpack.encode(farm.machine.whole()))
    for damaged in (file[:-1], file + b"x", file[:40]):
        with pytest.raises(InputRefused, match="nothing was changed"):
            unpack(damaged)


def without(whole, **kept):
    return pack(msgspec.structs.replace(whole, **kept))


def test_a_state_that_does_not_hold_together_is_refused(farm):
    whole = farm.machine.whole()
    far = Node(node="far", address="10.0.0.9")
    own = [each for each in whole.nodes if each.node == "n1"]
    stray = Check(node="far", check_id="stray", name="stray")
    lease = msgspec.structs.replace(whole.sessions[0], node="nowhere")
    for broken in (
        without(whole, nodes=own, checks=[each for each in whole.checks if each.node == "n1"]),
        without(
            whole, nodes=own, services=[each for each in whole.services if each.node == "n1"], checks=[stray]
        ),
        without(whole, nodes=[*own, far], services=[]),
        without(whole, checks=[]),
        without(whole, sessions=[lease]),
    ):
        with pytest.raises(InputRefused, match="that it does not hold"):
            unpack(broken)


def test_a_nodes_own_check_that_came_later_is_gone(farm):
    file = taken(farm)
    farm.do(commands.RegisterCheck(CheckSpec(check_id="disk", name="disk", ttl_s=10)))
    farm.do(commands.Restore(file))
    assert "disk" not in farm.machine.catalog.checks["n1"]
    assert "disk" not in farm.machine.agent.specs


def test_a_service_that_came_later_is_gone_from_a_node_that_stays(farm, goat):
    file = taken(farm)
    farm.do(commands.RegisterService(goat("goat-2"), []))
    farm.do(commands.CatalogRegister("far", None, Service(id="later", service="db"), []))
    farm.do(commands.Restore(file))
    assert set(farm.machine.catalog.services["n1"]) == {"consul", "goat-1"}
    assert set(farm.machine.catalog.services["far"]) == {"db"}


def test_a_check_that_the_agent_did_not_keep_is_not_kept(farm):
    bare = Check(node="n1", check_id="disk", name="disk", status="passing")
    farm.do(commands.CatalogRegister("n1", None, None, [bare]))
    file = taken(farm)
    farm.do(commands.RegisterCheck(CheckSpec(check_id="disk", name="disk", ttl_s=10)))
    farm.do(commands.Restore(file))
    farm.later(60)
    assert "disk" not in farm.machine.agent.specs
    assert farm.machine.catalog.checks["n1"]["disk"].status == "passing"


def test_a_file_that_unpacks_without_end_is_refused(monkeypatch, farm):
    monkeypatch.setattr(snapshot, "UNPACKED_BYTES_AT_MOST", 64)
    with pytest.raises(InputRefused, match="more than 64 bytes"):
        unpack(pack(farm.machine.whole()))
