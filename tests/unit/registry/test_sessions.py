from __future__ import annotations

import pytest

from milkrun.registry import commands
from milkrun.registry.nouns import CheckSpec, Node, Service, Session
from milkrun.registry.refusal import Refused


def entry(bench, key):
    return bench.machine.kv.get(key)


def test_a_session_ends_two_ttls_after_its_last_renewal(bench):
    session = bench.session(behavior="delete")
    bench.do(commands.KvLock("k", b"1", 0, session))
    bench.later(19)
    assert bench.do(commands.RenewSession(session)).id == session
    bench.later(19)
    assert entry(bench, "k").session == session
    bench.later(2)
    assert entry(bench, "k") is None
    assert bench.do(commands.RenewSession(session)) is None
    assert "k" in bench.touched_keys or bench.machine.sessions.live == {}


def test_renewing_writes_nothing(bench):
    session = bench.session()
    index = bench.machine.ledger.index
    bench.do(commands.RenewSession(session))
    assert (bench.machine.ledger.index, bench.wrote) == (index, 0)


def test_a_restart_gives_every_session_its_whole_time_again(bench):
    session = bench.session(behavior="release")
    bench.do(commands.KvLock("k", b"1", 0, session))
    bench.now += 3600
    bench.restart()
    bench.later(19)
    assert entry(bench, "k").session == session
    assert bench.do(commands.KvLock("k", b"2", 0, session)) is True
    bench.later(2)
    assert entry(bench, "k").session is not session
    assert not entry(bench, "k").session


def test_a_session_without_ttl_lives_on(bench):
    session = bench.session(ttl="")
    bench.later(10**6)
    assert session in bench.machine.sessions.live


def test_after_a_lost_holder_the_key_cannot_be_locked_for_the_delay(bench):
    first, second = bench.session(1, lock_delay=15 * 10**9), bench.session(2, ttl="")
    bench.do(commands.KvLock("k", b"1", 0, first))
    bench.do(commands.DestroySession(first))
    assert bench.do(commands.KvLock("k", b"2", 0, second)) is False
    bench.later(14)
    assert bench.do(commands.KvLock("k", b"2", 0, second)) is False
    bench.later(1.1)
    assert bench.do(commands.KvLock("k", b"2", 0, second)) is True
    assert not [row for row in bench.disk if row[0] == "lock-delay"]


def test_a_lock_that_was_left_is_not_delayed(bench):
    first, second = bench.session(1, lock_delay=15 * 10**9), bench.session(2)
    bench.do(commands.KvLock("k", b"1", 0, first))
    bench.do(commands.KvUnlock("k", b"1", 0, first))
    assert bench.do(commands.KvLock("k", b"2", 0, second)) is True


def test_a_restart_does_not_forget_a_lock_delay(bench):
    first, second = bench.session(1, lock_delay=15 * 10**9), bench.session(2, ttl="")
    bench.do(commands.KvLock("k", b"1", 0, first))
    bench.do(commands.DestroySession(first))
    bench.restart()
    assert bench.do(commands.KvLock("k", b"2", 0, second)) is False
    bench.later(15.1)
    assert bench.do(commands.KvLock("k", b"2", 0, second)) is True


def test_all_that_ends_with_a_session_has_one_index(bench):
    session = bench.session(behavior="delete")
    for key in "abc":
        bench.do(commands.KvLock(key, b"1", 0, session))
    index = bench.machine.ledger.index
    bench.do(commands.DestroySession(session))
    assert bench.machine.ledger.index == index + 1
    assert {bench.machine.kv.index_of(key) for key in "abc"} == {index + 1}
    assert bench.machine.kv.held == {}


@pytest.mark.parametrize("end", ["report", "deregister", "expire"])
def test_a_session_ends_with_its_check(bench, goat, end):
    spec = CheckSpec(check_id="alive", service_id="goat-1", ttl_s=15, status="passing")
    bench.do(commands.RegisterService(goat(), [spec]))
    session = bench.session(ttl="", node_checks=["serfHealth", "alive"])
    other = bench.session(2, ttl="", node_checks=["serfHealth"])
    bench.do(commands.KvLock("k", b"1", 0, session))
    if end == "report":
        bench.do(commands.ReportCheck("alive", "critical", ""))
    elif end == "deregister":
        bench.do(commands.DeregisterService("goat-1"))
    else:
        bench.later(16)
    assert set(bench.machine.sessions.live) == {other}
    assert not entry(bench, "k").session


def test_a_session_ends_with_its_node(bench):
    node = Node(node="ext", address="10.0.0.9")
    bench.do(commands.CatalogRegister("ext", node, Service(id="db", service="db"), []))
    session = Session(id="9" * 36, node="ext")
    bench.do(commands.CreateSession(session))
    bench.do(commands.CatalogDeregister("ext"))
    assert bench.machine.sessions.live == {}


def test_the_own_node_cannot_be_taken_out(bench):
    session = bench.session(node_checks=["serfHealth"])
    for command in (
        commands.CatalogDeregister("n1"),
        commands.CatalogDeregister("n1", check_id="serfHealth"),
    ):
        bench.do(command)
    assert set(bench.machine.sessions.live) == {session}


def test_who_may_not_lock(bench):
    for session, text in (
        ("", "missing session"),
        ("short", "UUID must be 36 characters"),
        ("1" * 36, "invalid session"),
    ):
        with pytest.raises(Refused, match=text):
            bench.do(commands.KvLock("k", b"", 0, session))
    assert entry(bench, "k") is None
