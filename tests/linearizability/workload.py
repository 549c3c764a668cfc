"""What the clients of one history do: drawn from its seed, and from what they have learnt from answers. Pure."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from linearizability import operations as ops
from linearizability.judge import shown
from linearizability.operations import Call

CLIENTS = 10
CALLS_EACH = 18
_T = TypeVar("_T")
_NO_INDEX = 1
"""No key has this index: the registry itself wrote before any client."""


class Workload:
    """Keys of its own, and clients that get in each other's way on them.

    `r0` and `r1` are plain keys, `t/` is a tree for transactions, `l0` and `l1` are locks under sessions.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.prefix = f"{seed}/"
        self.tree = f"{self.prefix}t/"
        self.plain = [f"{self.prefix}r{number}" for number in range(2)]
        self.leaves = [f"{self.tree}{name}" for name in "abc"]
        self.locks = [f"{self.prefix}l{number}" for number in range(2)]
        self._indexes: dict[str, list[int]] = defaultdict(list)
        self._sessions: list[str] = []
        self._written = 0

    @property
    def watched(self) -> list[ops.Get | ops.Tree]:
        """What watchers watch: a plain key, a lock, a leaf, and the whole tree."""
        return [
            ops.Get(self.plain[0]),
            ops.Get(self.locks[0]),
            ops.Get(self.leaves[0]),
            ops.Tree(self.tree),
        ]

    def chance(self, client: int, call: int) -> random.Random:
        """The chance of one call of a client: the seed alone gives its kind and key, whatever was learnt so far."""
        return random.Random(f"{self.seed}/{client}/{call}")

    def learn(self, call: Call) -> None:
        """What the answer told can be used by the next calls of all clients."""
        for _, entry in shown(call):
            self._indexes[entry.key].append(entry.modify_index)
        if isinstance(call.operation, ops.CreateSession) and call.operation.session:
            self._sessions.append(call.operation.session)

    def draw(self, chance: random.Random) -> ops.Operation:
        """The client's next operation."""
        kind = chance.choices((self._on_plain, self._on_tree, self._on_locks), (4, 4, 5))[0]
        return kind(chance)

    def last(self) -> list[ops.Get | ops.Tree]:
        """Reads that show all that there is in the end."""
        return [*map(ops.Get, [*self.plain, *self.locks]), ops.Tree(self.tree), ops.Get(self.leaves[0])]

    def _value(self) -> bytes:
        """A value that nobody wrote before: it names a state of its key."""
        self._written += 1
        return b"%d" % self._written

    def _index(self, chance: random.Random, key: str) -> int:
        """Mostly the newest index that anybody saw; or an older one, that of a missing key, or of none at all."""
        known = self._indexes[key] or [0]
        return chance.choices((known[-1], _one_of(chance, known), 0, _NO_INDEX), (12, 2, 2, 1))[0]

    def _session(self, chance: random.Random) -> str:
        """Mostly one of the newest: the older ones are often ended."""
        return _one_of(chance, self._sessions[-3:] if chance.random() < 0.8 else self._sessions)

    def _on_plain(self, chance: random.Random) -> ops.Operation:
        key = chance.choice(self.plain)
        draws: list[tuple[int, Callable[[], ops.Operation]]] = [
            (5, lambda: ops.Get(key)),
            (3, lambda: ops.Put(key, self._value(), chance.choice((0, 0, 7)))),
            (5, lambda: ops.Cas(key, self._value(), self._index(chance, key), chance.choice((0, 9)))),
            (1, lambda: ops.Delete(key)),
            (1, lambda: ops.DeleteCas(key, self._index(chance, key))),
        ]
        return _drawn(chance, draws)

    def _on_tree(self, chance: random.Random) -> ops.Operation:
        leaf = chance.choice(self.leaves)
        draws: list[tuple[int, Callable[[], ops.Operation]]] = [
            (3, lambda: ops.Tree(self.tree)),
            (2, lambda: ops.Get(leaf)),
            (2, lambda: ops.Put(leaf, self._value())),
            (7, lambda: ops.Txn(self._steps(chance))),
            (1, lambda: ops.DeleteTree(self.tree)),
        ]
        return _drawn(chance, draws)

    def _steps(self, chance: random.Random) -> tuple[ops.Operation, ...]:
        """Steps on different leaves, so that no transaction writes a key twice; at times with a look at all."""
        steps: list[ops.Operation] = []
        for leaf in chance.sample(self.leaves, chance.randrange(1, 4)):
            draws: list[tuple[int, Callable[[], ops.Operation]]] = [
                (6, lambda leaf=leaf: ops.Put(leaf, self._value(), chance.choice((0, 3)))),
                (4, lambda leaf=leaf: ops.Cas(leaf, self._value(), self._index(chance, leaf))),
                (1, lambda leaf=leaf: ops.Delete(leaf)),
                (1, lambda leaf=leaf: ops.DeleteCas(leaf, self._index(chance, leaf))),
                (1, lambda leaf=leaf: ops.CheckIndex(leaf, self._index(chance, leaf))),
                (1, lambda leaf=leaf: ops.CheckSession(leaf, "")),
                (1, lambda leaf=leaf: ops.CheckNotExists(leaf)),
                (1, lambda leaf=leaf: ops.Get(leaf)),
            ]
            steps.append(_drawn(chance, draws))
        if chance.random() < 0.3:
            steps.append(ops.Tree(self.tree))
        if chance.random() < 0.1:
            steps.insert(0, ops.DeleteTree(self.tree))
        return tuple(steps)

    def _on_locks(self, chance: random.Random) -> ops.Operation:
        if not self._sessions:
            return ops.CreateSession(chance.choice(("release", "delete")))
        key, session = chance.choice(self.locks), self._session(chance)
        draws: list[tuple[int, Callable[[], ops.Operation]]] = [
            (7, lambda: ops.Acquire(key, self._value(), session)),
            (4, lambda: ops.Release(key, self._value(), session)),
            (3, lambda: ops.CreateSession(chance.choice(("release", "delete")))),
            (2, lambda: ops.EndSession(session)),
            (1, lambda: ops.AskSession(session)),
            (5, lambda: ops.Get(key)),
            (1, lambda: ops.Put(key, self._value())),
            (1, lambda: ops.Delete(key)),
            (2, lambda: ops.Txn((ops.CheckSession(key, session), ops.Put(key, self._value(), 5)))),
            (1, lambda: ops.Txn(tuple(ops.Acquire(each, self._value(), session) for each in self.locks))),
            (1, lambda: ops.Txn((ops.Release(key, self._value(), session), ops.Get(key)))),
        ]
        return _drawn(chance, draws)


def _one_of(chance: random.Random, known: list[_T]) -> _T:
    """One of those. Unlike `choice` it uses up the same chance however many there are."""
    return known[int(chance.random() * len(known))]


def _drawn(chance: random.Random, draws: list[tuple[int, Callable[[], ops.Operation]]]) -> ops.Operation:
    (draw,) = chance.choices([draw for _, draw in draws], [weight for weight, _ in draws])
    return draw()
