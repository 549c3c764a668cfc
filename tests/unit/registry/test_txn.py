from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry import commands
from milkrun.registry.commands import TxnOp
from milkrun.registry.state import Machine

SESSION = "1" * 36
KEYS = st.sampled_from(["a", "a/b", "a/c", "b"])
VALUES = st.sampled_from([b"", b"1", b"2"])
OPS = st.lists(
    st.one_of(
        st.builds(TxnOp, verb=st.just("set"), key=KEYS, value=VALUES, flags=st.integers(0, 1)),
        st.builds(TxnOp, verb=st.just("cas"), key=KEYS, value=VALUES, index=st.integers(0, 3)),
        st.builds(TxnOp, verb=st.just("delete"), key=KEYS),
        st.builds(TxnOp, verb=st.just("delete-tree"), key=KEYS),
        st.builds(TxnOp, verb=st.just("get-tree"), key=KEYS),
        st.builds(TxnOp, verb=st.just("get"), key=KEYS),
        st.builds(TxnOp, verb=st.just("check-not-exists"), key=KEYS),
        st.builds(TxnOp, verb=st.just("bogus"), key=KEYS),
    ),
    max_size=6,
)


def machine_with(keys):
    machine = Machine("n1")
    for key in keys:
        machine.apply(commands.KvPut(key, b"0"), 0.0)
    machine.ledger.take()
    return machine


def shown(machine):
    return [(each.key, each.value, each.flags) for each in machine.kv.under("")]


@given(st.sets(KEYS), OPS)
def test_all_or_nothing(keys, operations):
    machine = machine_with(keys)
    before, index = machine.kv.under(""), machine.ledger.index
    result = machine.apply(commands.Txn(operations), 0.0)
    rows, touched, touched_keys = machine.ledger.take()
    if result.Errors:
        assert result.Results is None
        assert (machine.kv.under(""), machine.ledger.index) == (before, index)
        assert (rows, touched, touched_keys) == ({}, set(), [])
    else:
        assert machine.ledger.index in (index, index + 1)
        changed = {each.key: each for each in machine.kv.under("")}.items() ^ {
            e.key: e for e in before
        }.items()
        assert {key for key, _ in changed} <= set(touched_keys) == {key for _, key in rows}


@given(st.sets(KEYS), OPS)
def test_what_holds_does_the_same_one_by_one(keys, operations):
    together, apart = machine_with(keys), machine_with(keys)
    if together.apply(commands.Txn(operations), 0.0).Errors:
        return
    for operation in operations:
        # A cas inside a transaction sees the indexes of its start, or the coming one; the values must agree.
        entry = apart.kv.get(operation.key)
        index = entry.modify_index if entry else 0
        fresh = msgspec.structs.replace(operation, index=index) if operation.verb == "cas" else operation
        assert not apart.apply(commands.Txn([fresh]), 0.0).Errors
    assert shown(together) == shown(apart)


def test_results_carry_values_only_where_they_were_asked_for():
    machine = machine_with(["a"])
    result = machine.apply(
        commands.Txn([TxnOp(verb="set", key="b", value=b"1"), TxnOp(verb="get", key="b")]), 0.0
    )
    assert [each["KV"].value for each in result.Results] == [None, b"1"]
