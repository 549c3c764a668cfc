"""A registry that does one thing at a time: what each operation answers and leaves behind. Pure.

Written from Consul's documentation, not from our registry: the two are compared. An index is known to the model
where some answer of the history showed it; any other is only known to be higher than all before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from linearizability import operations as ops
from linearizability.operations import Call, Entry

Stamps = Mapping[tuple[str, bytes, str], int]
"""The ModifyIndex of each state of a key that was seen: key, value, session."""


class Held(msgspec.Struct, frozen=True):
    """A key that is there. Indexes are 0 where nobody saw them."""

    value: bytes
    flags: int
    session: str
    lock_index: int
    created: int
    modified: int


class Gone(msgspec.Struct, frozen=True):
    """A key that is not there since an index higher than this."""

    above: int


class State(msgspec.Struct, frozen=True):
    """The keys in their order, the live sessions, and the highest index that is known to be used."""

    slots: tuple[Held | Gone, ...]
    live: frozenset[str]
    newest: int


class RegistryModel:
    """The model for these keys and sessions (each with its behavior)."""

    def __init__(self, keys: Sequence[str], behaviors: Mapping[str, str], stamps: Stamps) -> None:
        self.keys = tuple(sorted(keys))
        self.behaviors = behaviors
        self.stamps = stamps

    def initial(self) -> State:
        return State(tuple(Gone(0) for _ in self.keys), frozenset(), 0)

    def step(self, state: State, call: Call) -> State | None:
        draft = _Draft(self, state)
        if not draft.answers(call.operation, call.answer):
            return None
        return draft.state()


class _Draft:
    """A state in the making."""

    def __init__(self, model: RegistryModel, state: State) -> None:
        self._model = model
        self._before = state
        self._start()

    def _start(self) -> None:
        self.slots = dict(zip(self._model.keys, self._before.slots, strict=True))
        self.live = set(self._before.live)
        self.newest = self._before.newest
        self.written: set[int] = set()

    def state(self) -> State | None:
        """The state after all that was done; None when the indexes that were seen forbid it."""
        newest = self.newest
        if self.written:
            (newest, *others) = self.written
            # All that one operation writes has one index, and it was never used before.
            if others or newest <= self.newest:
                return None
        return State(tuple(self.slots.values()), frozenset(self.live), newest)

    def answers(self, operation: ops.Operation, answer: ops.Answer | None) -> bool:
        """Does the operation. Whether it can have been answered so; it can always have been without an answer."""
        match operation:
            case ops.Get(key):
                return self._shows({key: self.slots[key]}, answer)
            case ops.Tree(prefix):
                return self._shows(self._under(prefix), answer)
            case ops.Txn(steps):
                return self._transacts(steps, answer)
            case _:
                outcome = self.does(operation)
                return answer is None or answer == outcome

    # What is read

    def _under(self, prefix: str) -> dict[str, Held | Gone]:
        return {key: slot for key, slot in self.slots.items() if key.startswith(prefix)}

    def _shows(self, slots: Mapping[str, Held | Gone], answer: ops.Answer | None) -> bool:
        if not isinstance(answer, ops.Read):
            return answer is None
        there = {key: slot for key, slot in slots.items() if isinstance(slot, Held)}
        if [entry.key for entry in answer.entries] != list(there):
            return False
        if not all(_same(there[entry.key], entry, entry.value or b"") for entry in answer.entries):
            return False
        # The index that a watcher would go on from: below it nothing may be missing, above it everything is new.
        if any(answer.index < slot.modified for slot in there.values()):
            return False
        if any(answer.index <= slot.above for slot in slots.values() if isinstance(slot, Gone)):
            return False
        self.newest = max(self.newest, answer.index)
        return True

    # What is changed

    def does(self, operation: ops.Operation) -> ops.Answer:  # noqa: PLR0912  one arm an operation
        """The answer of an operation that shows no entries, which is done."""
        match operation:
            case ops.Put(key, value, flags):
                self._put(key, value, flags)
            case ops.Cas(key, value, index, flags):
                if not self._is_at(key, index):
                    return ops.Said(yes=False)
                self._put(key, value, flags)
            case ops.Acquire(key, value, session):
                return self._acquire(key, value, session)
            case ops.Release(key, value, session):
                slot = self.slots[key]
                if isinstance(slot, Gone) or not session or slot.session != session:
                    return ops.Said(yes=False)
                self._write(key, value, 0, "", slot.lock_index)
            case ops.Delete(key):
                self._erase(key)
            case ops.DeleteCas(key, index):
                if isinstance(self.slots[key], Held) and not self._is_at(key, index):
                    return ops.Said(yes=False)
                self._erase(key)
            case ops.DeleteTree(prefix):
                for key in self._under(prefix):
                    self._erase(key)
            case ops.CreateSession(_, session):
                self.live.add(session)
                return ops.Created(session)
            case ops.EndSession(session):
                self._end(session)
            case ops.AskSession(session):
                return ops.Said(yes=session in self.live)
            case _:
                raise TypeError(f"not an operation of its own: {operation}")
        return ops.Said(yes=True)

    def _is_at(self, key: str, index: int) -> bool:
        slot = self.slots[key]
        # An index that a client knows was seen, so a state that nobody saw is at another one.
        return index == 0 if isinstance(slot, Gone) else index == slot.modified != 0

    def _put(self, key: str, value: bytes, flags: int) -> None:
        slot = self.slots[key]
        self._write(key, value, flags, slot.session if isinstance(slot, Held) else "", 0)

    def _acquire(self, key: str, value: bytes, session: str) -> ops.Answer:
        if session not in self.live:
            return ops.NoSession()
        slot = self.slots[key]
        holder = slot.session if isinstance(slot, Held) else ""
        if holder not in ("", session):
            return ops.Said(yes=False)
        count = slot.lock_index if isinstance(slot, Held) else 0
        self._write(key, value, 0, session, count if holder else count + 1)
        return ops.Said(yes=True)

    def _end(self, session: str) -> None:
        self.live.discard(session)
        for key, slot in self.slots.items():
            if isinstance(slot, Held) and slot.session == session:
                if self._model.behaviors[session] == "delete":
                    self._erase(key)
                else:
                    self._write(key, slot.value, slot.flags, "", slot.lock_index)

    def _write(self, key: str, value: bytes, flags: int, session: str, lock_index: int) -> None:
        old = self.slots[key]
        stamp = self._model.stamps.get((key, value, session), 0)
        if stamp:
            self.written.add(stamp)
        created = old.created if isinstance(old, Held) else stamp
        self.slots[key] = Held(value, flags, session, lock_index, created, stamp)

    def _erase(self, key: str) -> None:
        if isinstance(self.slots[key], Held):
            self.slots[key] = Gone(self.newest)

    # Transactions

    def _transacts(self, steps: Sequence[ops.Operation], answer: ops.Answer | None) -> bool:
        failed: list[int] = []
        results: list[tuple[Held, str, bytes | None]] = []
        for place, step in enumerate(steps):
            found = self._step(step)
            if found is None:
                failed.append(place)
            else:
                results += found
        if failed:
            self._start()
            return answer is None or answer == ops.Undone(tuple(failed))
        if answer is None:
            return True
        if not isinstance(answer, ops.Done) or len(answer.entries) != len(results):
            return False
        return all(
            entry.key == key and entry.value == value and _same(slot, entry, slot.value)
            for (slot, key, value), entry in zip(results, answer.entries, strict=True)
        )

    def _step(self, step: ops.Operation) -> list[tuple[Held, str, bytes | None]] | None:
        """What the step shows (and the value, where it shows it), None when it does not hold."""
        match step:
            case ops.Get(key):
                slot = self.slots[key]
                return None if isinstance(slot, Gone) else [(slot, key, slot.value)]
            case ops.Tree(prefix):
                under = self._under(prefix).items()
                return [(slot, key, slot.value) for key, slot in under if isinstance(slot, Held)]
            case ops.CheckIndex(key, index):
                return self._checked(key, self._is_at(key, index))
            case ops.CheckSession(key, session):
                slot = self.slots[key]
                return self._checked(key, isinstance(slot, Held) and slot.session == session)
            case ops.CheckNotExists(key):
                return [] if isinstance(self.slots[key], Gone) else None
            case ops.Put(key) | ops.Cas(key) | ops.Acquire(key) | ops.Release(key):
                return self._checked(key, self.does(step) == ops.Said(yes=True))
            case ops.Delete() | ops.DeleteCas() | ops.DeleteTree():
                return [] if self.does(step) == ops.Said(yes=True) else None
            case _:
                raise TypeError(f"no step of a transaction: {step}")

    def _checked(self, key: str, held: bool) -> list[tuple[Held, str, bytes | None]] | None:
        slot = self.slots[key]
        return [(slot, key, None)] if held and isinstance(slot, Held) else None


def _same(slot: Held, entry: Entry, value: bytes) -> bool:
    """Whether the entry is this state of the key, as far as its indexes are known."""
    return (
        slot.value == value
        and slot.flags == entry.flags
        and slot.session == entry.session
        and slot.lock_index == entry.lock_index
        and slot.modified in (0, entry.modify_index)
        and slot.created in (0, entry.create_index)
    )
