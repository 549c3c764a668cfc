"""The model and the judge: histories of a registry whose verdict is known."""

from __future__ import annotations

import pytest
from linearizability import operations as ops
from linearizability.judge import judge, parts
from linearizability.operations import NEVER, Call, Entry

YES, NO, NO_SESSION = ops.Said(yes=True), ops.Said(yes=False), ops.NoSession()
S1 = ops.CreateSession("release", "s1"), ops.Created("s1")
D1 = ops.CreateSession("delete", "s1"), ops.Created("s1")
S2 = ops.CreateSession("release", "s2"), ops.Created("s2")
A, B, TREE = "t/a", "t/b", ops.Tree("t/")


def put(value: bytes, key: str = A) -> tuple[ops.Operation, ops.Answer]:
    return ops.Put(key, value), YES


def entry(value: bytes, index: int, key: str = A, *, created: int = 0, **fields) -> Entry:
    return Entry(key=key, value=value, create_index=created or index, modify_index=index, **fields)


def sees(*entries: Entry, index: int = 0, key: str = A) -> tuple[ops.Operation, ops.Answer]:
    return ops.Get(key), ops.Read(index or entries[0].modify_index, entries)


def tree(index: int, *entries: Entry) -> tuple[ops.Operation, ops.Answer]:
    return TREE, ops.Read(index, entries)


def txn(*steps: ops.Operation, shows: tuple[Entry, ...] = (), fails: tuple[int, ...] = ()):
    return ops.Txn(steps), ops.Undone(fails) if fails else ops.Done(shows)


def plain(written: Entry) -> Entry:
    """As a transaction shows what it wrote: without the value."""
    return Entry(**{name: getattr(written, name) for name in written.__struct_fields__} | {"value": None})


def in_a_row(*done: tuple[ops.Operation, ops.Answer | None]) -> list[Call]:
    """One call after the other; one without an answer never ended."""
    return [
        Call("c", operation, 2 * place, 2 * place + 1 if answer else NEVER, answer)
        for place, (operation, answer) in enumerate(done)
    ]


GOOD = {
    "nothing is there": in_a_row(sees(index=1)),
    "what was put": in_a_row(put(b"1"), sees(entry(b"1", 5)), sees(entry(b"1", 5))),
    "put anew, created once": in_a_row(
        put(b"1"), sees(entry(b"1", 5)), put(b"2"), sees(entry(b"2", 9, created=5))
    ),
    "cas by the index that was seen": in_a_row(
        put(b"1"), sees(entry(b"1", 5)), (ops.Cas(A, b"2", 5), YES), (ops.Cas(A, b"3", 5), NO)
    ),
    "cas of a key that is not there": in_a_row((ops.Cas(A, b"1", 0), YES), (ops.Cas(A, b"2", 0), NO)),
    "deleted, with an index above": in_a_row(
        put(b"1"), sees(entry(b"1", 5)), (ops.Delete(A), YES), sees(index=6)
    ),
    "delete-cas": in_a_row(
        put(b"1"),
        sees(entry(b"1", 5)),
        (ops.DeleteCas(A, 4), NO),
        (ops.DeleteCas(A, 5), YES),
        (ops.DeleteCas(A, 5), YES),
    ),
    "an unknown put happened late": in_a_row((ops.Put(A, b"1"), None), sees(index=1), sees(entry(b"1", 5))),
    "a lock": in_a_row(
        S1,
        S2,
        (ops.Acquire(A, b"1", "s1"), YES),
        (ops.Acquire(A, b"2", "s2"), NO),
        (ops.Acquire(A, b"3", "s1"), YES),
        sees(entry(b"3", 6, created=5, session="s1", lock_index=1)),
        (ops.Release(A, b"4", "s2"), NO),
        (ops.Release(A, b"5", "s1"), YES),
        (ops.Acquire(A, b"6", "s2"), YES),
        sees(entry(b"6", 8, created=5, session="s2", lock_index=2)),
    ),
    "a put leaves the lock to its holder, and forgets the count": in_a_row(
        S1, (ops.Acquire(A, b"1", "s1"), YES), put(b"2"), sees(entry(b"2", 6, created=5, session="s1"))
    ),
    "an ended session lets go, under a new index": in_a_row(
        S1,
        (ops.Acquire(A, b"1", "s1"), YES),
        sees(entry(b"1", 5, session="s1", lock_index=1)),
        (ops.EndSession("s1"), YES),
        sees(entry(b"1", 7, created=5, lock_index=1)),
        (ops.AskSession("s1"), NO),
        (ops.Acquire(A, b"2", "s1"), NO_SESSION),
    ),
    "or deletes": in_a_row(
        D1, (ops.Acquire(A, b"1", "s1"), YES), (ops.EndSession("s1"), YES), sees(index=7)
    ),
    "a transaction": in_a_row(
        txn(
            ops.Put(A, b"1"), ops.Put(B, b"2"), TREE, shows=(
                plain(entry(b"1", 5)), plain(entry(b"2", 5, B)), entry(b"1", 5), entry(b"2", 5, B))
        ),
        tree(5, entry(b"1", 5), entry(b"2", 5, B)),
    ),
    "a refused transaction does nothing": in_a_row(
        txn(ops.Put(A, b"1"), ops.CheckIndex(B, 9), ops.Get(B), fails=(1, 2)), tree(1)
    ),
    "a transaction under a lock": in_a_row(
        S1,
        (ops.Acquire(A, b"1", "s1"), YES),
        txn(ops.CheckSession(A, "s1"), ops.Put(B, b"2"), shows=(
            plain(entry(b"1", 5, session="s1", lock_index=1)), plain(entry(b"2", 6, B)))),
        txn(ops.CheckSession(A, ""), fails=(0,)),
    ),
    "a tree is deleted": in_a_row(
        put(b"1"), put(b"2", B), tree(6, entry(b"1", 5), entry(b"2", 6, B)), (ops.DeleteTree("t/"), YES), tree(7)
    ),
}  # fmt: skip
BAD = {
    "a lost put": in_a_row(put(b"1"), sees(index=1)),
    "an old value": in_a_row(put(b"1"), sees(entry(b"1", 5)), put(b"2"), sees(entry(b"1", 5))),
    "other flags": in_a_row((ops.Put(A, b"1", 7), YES), sees(entry(b"1", 5))),
    "cas by an old index": in_a_row(
        put(b"1"), sees(entry(b"1", 5)), put(b"2"), (ops.Cas(A, b"3", 5), YES)
    ),
    "cas refused for no reason": in_a_row(put(b"1"), sees(entry(b"1", 5)), (ops.Cas(A, b"2", 5), NO)),
    "cas of a key that is there as if it were not": in_a_row(put(b"1"), (ops.Cas(A, b"2", 0), YES)),
    "delete-cas by an old index": in_a_row(
        put(b"1"), sees(entry(b"1", 5)), put(b"2"), (ops.DeleteCas(A, 5), YES)
    ),
    "a deletion that is not": in_a_row(put(b"1"), (ops.Delete(A), YES), sees(entry(b"1", 5))),
    "one index for two states": in_a_row(put(b"1"), sees(entry(b"1", 5)), put(b"2"), sees(entry(b"2", 5))),
    "two indexes for one state": in_a_row(put(b"1"), sees(entry(b"1", 5)), sees(entry(b"1", 6))),
    "an index that goes back": in_a_row(put(b"1"), sees(entry(b"1", 5)), put(b"2"), sees(entry(b"2", 4))),
    "created twice": in_a_row(put(b"1"), sees(entry(b"1", 5)), put(b"2"), sees(entry(b"2", 9))),
    "created after it was written": in_a_row(put(b"1"), sees(entry(b"1", 5, created=6))),
    "a deletion under the index that it had": in_a_row(
        put(b"1"), sees(entry(b"1", 5)), (ops.Delete(A), YES), sees(index=5)
    ),
    "written under an index that a reader of nothing has passed": in_a_row(
        sees(index=9), put(b"1"), sees(entry(b"1", 8))
    ),
    "an answer below the index of what it shows": in_a_row(put(b"1"), sees(entry(b"1", 5), index=4)),
    "an unknown put that happened before it began": in_a_row(sees(entry(b"1", 5)), (ops.Put(A, b"1"), None)),
    "two hold a lock": in_a_row(
        S1, S2, (ops.Acquire(A, b"1", "s1"), YES), (ops.Acquire(A, b"2", "s2"), YES)
    ),
    "a free lock is refused": in_a_row(S1, (ops.Acquire(A, b"1", "s1"), NO)),
    "a lock without its holder": in_a_row(
        S1, (ops.Acquire(A, b"1", "s1"), YES), sees(entry(b"1", 5, lock_index=1))
    ),
    "somebody else releases": in_a_row(
        S1, S2, (ops.Acquire(A, b"1", "s1"), YES), (ops.Release(A, b"2", "s2"), YES)
    ),
    "the count of a lock stands still": in_a_row(
        S1,
        (ops.Acquire(A, b"1", "s1"), YES),
        (ops.Release(A, b"2", "s1"), YES),
        (ops.Acquire(A, b"3", "s1"), YES),
        sees(entry(b"3", 7, created=5, session="s1", lock_index=1)),
    ),
    "an ended session holds on": in_a_row(
        S1, S2, (ops.Acquire(A, b"1", "s1"), YES), (ops.EndSession("s1"), YES), (ops.Acquire(A, b"2", "s2"), NO)
    ),
    "an ended session lives": in_a_row(S1, (ops.EndSession("s1"), YES), (ops.AskSession("s1"), YES)),
    "an ended session locks": in_a_row(
        S1, (ops.EndSession("s1"), YES), (ops.Acquire(A, b"1", "s1"), YES)
    ),
    "released in place of deleted": in_a_row(
        D1,
        (ops.Acquire(A, b"1", "s1"), YES),
        (ops.EndSession("s1"), YES),
        sees(entry(b"1", 7, created=5, lock_index=1)),
    ),
    "half of a transaction": in_a_row(
        txn(ops.Put(A, b"1"), ops.Put(B, b"2"), shows=(plain(entry(b"1", 5)), plain(entry(b"2", 5, B)))),
        tree(5, entry(b"1", 5)),
    ),
    "a transaction under two indexes": in_a_row(
        txn(ops.Put(A, b"1"), ops.Put(B, b"2"), shows=(plain(entry(b"1", 5)), plain(entry(b"2", 6, B))))
    ),
    "a transaction that checks at another index": in_a_row(
        put(b"1"), sees(entry(b"1", 5)), txn(ops.CheckSession(A, ""), shows=(plain(entry(b"1", 7, created=5)),))
    ),
    "a transaction that shows nothing": in_a_row(txn(ops.Put(A, b"1"))),
    "a transaction that shows another value": in_a_row(put(b"1"), txn(ops.Get(A), shows=(entry(b"2", 5),))),
    "a transaction that shows another key": in_a_row(
        txn(ops.Put(A, b"1"), ops.Get(B), fails=(1,)), txn(ops.Put(A, b"2"), shows=(plain(entry(b"2", 5, B)),))
    ),
    "a refused transaction was done": in_a_row(
        txn(ops.Put(A, b"1"), ops.CheckIndex(B, 9), fails=(1,)), sees(entry(b"1", 5))
    ),
    "a transaction that blames the wrong step": in_a_row(
        txn(ops.Put(A, b"1"), ops.CheckIndex(B, 9), fails=(0,))
    ),
    "a transaction that passes over its check": in_a_row(
        put(b"1"), txn(ops.CheckNotExists(A), ops.Put(B, b"2"), shows=(plain(entry(b"2", 6, B)),))
    ),
    "a transaction in pieces: between them somebody reads": in_a_row(
        txn(ops.Put(A, b"1"), ops.Put(B, b"2"), shows=(plain(entry(b"1", 5)), plain(entry(b"2", 5, B)))),
        txn(ops.Put(A, b"3"), ops.Put(B, b"4"), shows=(
            plain(entry(b"3", 6, created=5)), plain(entry(b"4", 6, B, created=5)))),
        tree(6, entry(b"1", 5), entry(b"4", 6, B, created=5)),
    ),
    "a tree half deleted": in_a_row(put(b"1"), put(b"2", B), (ops.DeleteTree("t/"), YES), tree(7, entry(b"2", 6, B))),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_registry_may_have_this_history(name):
    assert list(judge(GOOD[name])) == []


@pytest.mark.parametrize("name", BAD)
def test_no_registry_has_this_history(name):
    assert list(judge(BAD[name])) != []


@pytest.mark.parametrize("name", GOOD)
def test_with_any_one_answer_lost_it_is_still_a_registrys(name):
    history = GOOD[name]
    for place, call in enumerate(history):
        # A read tells the index by which a later `cas` goes, and a new session its id: those are needed.
        if not isinstance(call.operation, (ops.Get, ops.Tree, ops.CreateSession)):
            lost = Call(call.client, call.operation, call.began)
            assert list(judge([*history[:place], lost, *history[place + 1 :]])) == [], call


def test_what_is_wrong_with_an_index_is_said_in_words():
    told = {name: [trouble.why for trouble in judge(history)] for name, history in BAD.items()}

    assert "t/a has the index 6 and 5 with nothing written in between" in told["two indexes for one state"]
    assert "two states of t/a have the index 5: (b'1', '')" in told["one index for two states"]
    assert "t/a was created after it was written" in told["created after it was written"]


def test_what_was_not_decided_is_no_success():
    (trouble,) = judge(GOOD["a lock"], steps_at_most=3)

    assert "undecided" in str(trouble)


def test_a_trouble_shows_the_calls_before_it():
    (trouble,) = judge([*BAD["a lost put"], *in_a_row(put(b"9", "other"))])

    assert [call.operation for call in trouble.calls] == [ops.Put(A, b"1"), ops.Get(A)]


def test_what_overlaps_may_have_happened_in_either_order():
    both = [Call("c", ops.Put(A, b"1"), 0, 9, YES), Call("d", ops.Put(A, b"2"), 1, 8, YES)]
    for value in (b"1", b"2"):
        seen, answer = sees(entry(value, 6, created=5))
        assert list(judge([*both, Call("e", seen, 10, 11, answer)])) == []


def test_parts_are_what_hangs_together():
    calls = in_a_row(
        put(b"1", "x"),
        put(b"2", "y"),
        txn(ops.Put("p", b"3"), ops.Put("q", b"4"), fails=(0,)),
        put(b"5", "q"),
        S1,
        (ops.Acquire("l", b"6", "s1"), YES),
        (ops.EndSession("s1"), YES),
        tree(1),
        put(b"7", A),
        put(b"8", B),
        (ops.Get("x"), None),
    )

    assert sorted(sorted(calls.index(call) for call in part) for part in parts(calls)) == [
        [0], [1], [2, 3], [4, 5, 6], [7, 8, 9],
    ]  # fmt: skip
