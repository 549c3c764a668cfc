"""What the clients do: the same for the same seed, and everything that the checker knows."""

from __future__ import annotations

from linearizability import operations as ops
from linearizability.judge import touched
from linearizability.operations import Call, Entry
from linearizability.workload import CALLS_EACH, CLIENTS, Workload


def drawn(workload: Workload) -> list[ops.Operation]:
    """All that its clients wish for, one client after the other."""
    places = [(client, call) for client in range(CLIENTS) for call in range(CALLS_EACH)]
    return [workload.draw(workload.chance(*place)) for place in places]


def knowing(seed: int, *indexes: int) -> Workload:
    """A workload whose clients have seen a session and these indexes of each key."""
    workload = Workload(seed)
    created = ops.CreateSession("release", "s1")
    workload.learn(Call("c", created, 0, 1, ops.Created("s1")))
    for key in (*workload.plain, *workload.leaves, *workload.locks):
        entries = tuple(Entry(key=key, modify_index=index) for index in indexes)
        workload.learn(Call("c", ops.Get(key), 0, 1, ops.Read(9, entries)))
    return workload


def kinds(operations: list[ops.Operation]) -> list[tuple[type, tuple[str, ...]]]:
    return [(type(operation), touched(operation)) for operation in operations]


def test_a_seed_gives_the_same_wishes_whatever_was_seen():
    assert kinds(drawn(knowing(7, 5))) == kinds(drawn(knowing(7, 5, 6, 8)))
    assert kinds(drawn(knowing(7, 5))) != kinds(drawn(knowing(8, 5)))


def test_no_value_is_written_twice():
    flat = [step for each in drawn(knowing(7, 5)) for step in getattr(each, "steps", (each,))]
    values = [step.value for step in flat if hasattr(step, "value")]

    assert len(set(values)) == len(values) > 50


def test_no_transaction_writes_a_key_twice_and_only_its_last_step_shows_a_tree():
    transactions = [
        each for seed in range(20) for each in drawn(knowing(seed, 5)) if isinstance(each, ops.Txn)
    ]

    assert len(transactions) > 100
    for transaction in transactions:
        written = [step.key for step in transaction.steps if hasattr(step, "value")]
        assert len(set(written)) == len(written)
        assert not any(isinstance(step, ops.Tree) for step in transaction.steps[:-1])


def test_every_kind_of_operation_is_wished_for():
    wishes = [each for seed in range(20) for each in drawn(knowing(seed, 5))]
    steps = [step for each in wishes for step in getattr(each, "steps", ())]

    assert {type(each) for each in [*wishes, *steps]} == set(ops.Operation.__subclasses__())
