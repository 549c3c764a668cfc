"""A registry with one planted fault: `python -m linearizability.faulty FAULT registry --http ...`.

Each is a fault that a registry could really have, and that leaves every single answer plausible. Some strike
always, some at times, as races do.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from milkrun.registry import commands, kv, txn
from milkrun.registry.engine import Engine
from milkrun.registry.http import blocking
from milkrun.registry.kv import KeyValues
from milkrun.registry.nouns import Entry
from milkrun.registry.parked import Parked
from milkrun.registry.sessions import Sessions
from milkrun.registry.state import Machine
from milkrun.registry.storage import Storage

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(plant: Callable[[], None]) -> Callable[[], None]:
    MUTANTS[plant.__name__] = plant
    return plant


def at_times(share: float) -> bool:
    return random.random() < share


# The disk


@mutant
def answers_before_the_disk_has_it() -> None:
    """Every twentieth commit takes the ones before it along: a kill loses what was answered."""
    late: dict[Any, bytes | None] = {}
    commit, leave = Storage.commit, Storage.__exit__
    newest = [0, 0]

    def later(self: Storage, rows: Any, index: int) -> None:
        late.update(rows)
        newest[:] = newest[0] + 1, index
        if newest[0] % 20 == 0:
            flushed(self)

    def flushed(self: Storage) -> None:
        if late:
            commit(self, dict(late), newest[1])
            late.clear()

    def ended(self: Storage, *why: object) -> None:
        flushed(self)
        leave(self, *why)

    Storage.commit, Storage.__exit__ = later, ended


@mutant
def forgets_the_last_commit_at_a_restart() -> None:
    opened = Storage._open

    def forgetful(self: Storage) -> Any:
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(self.folder / "registry.db")) as db,
        ):
            db.execute("DELETE FROM log WHERE place = (SELECT max(place) FROM log)")
            db.commit()
        return opened(self)

    Storage._open = forgetful


@mutant
def deleted_keys_are_back_after_a_restart() -> None:
    commit = Storage.commit

    def without_deletions(self: Storage, rows: Any, index: int) -> None:
        commit(self, {row: body for row, body in rows.items() if body is not None}, index)

    Storage.commit = without_deletions


@mutant
def uses_indexes_again_after_a_restart() -> None:
    index = Storage.index
    Storage.index = property(lambda self: max(1, index.fget(self) - 20))


# What is read


def remembers_older() -> dict[str, Entry | None]:
    """What each key was before its last change; `KeyValues.applying` says when it is no reader who asks."""
    older: dict[str, Entry | None] = {}
    write, erase, apply = KeyValues.write, KeyValues.erase, Machine.apply
    KeyValues.applying = False

    def written(self: KeyValues, entry: Entry) -> None:
        older[entry.key] = self._entries.get(entry.key)
        write(self, entry)

    def erased(self: KeyValues, key: str) -> None:
        older[key] = self._entries.get(key)
        erase(self, key)

    def applied(self: Machine, *command: Any) -> Any:
        KeyValues.applying = True
        try:
            return apply(self, *command)
        finally:
            KeyValues.applying = False

    KeyValues.write, KeyValues.erase, Machine.apply = written, erased, applied
    return older


@mutant
def reads_are_stale_at_times() -> None:
    older, get = remembers_older(), KeyValues.get

    def stale(self: KeyValues, key: str) -> Entry | None:
        now = get(self, key)
        return now if self.applying or not at_times(0.05) else older.get(key, now)

    KeyValues.get = stale


@mutant
def a_tree_is_torn_at_times() -> None:
    older, under = remembers_older(), KeyValues.under

    def torn(self: KeyValues, prefix: str) -> list[Entry]:
        now = under(self, prefix)
        if self.applying or not now or not at_times(0.2):
            return now
        return [older.get(now[0].key) or now[0], *now[1:]]

    KeyValues.under = torn


@mutant
def a_watcher_gets_the_value_before() -> None:
    older, get, shared = remembers_older(), KeyValues.get, blocking._shared
    woken = [False]

    def behind(self: KeyValues, key: str) -> Entry | None:
        return older[key] if woken[0] and key in older else get(self, key)

    def late(*what: Any) -> Any:
        woken[0] = at_times(0.5)
        try:
            return shared(*what)
        finally:
            woken[0] = False

    KeyValues.get, blocking._shared = behind, late


@mutant
def a_wake_up_is_lost_at_times() -> None:
    wake = Parked.wake

    def sleepy(self: Parked, *what: Any) -> None:
        if not at_times(0.1):
            wake(self, *what)

    Parked.wake = sleepy


@mutant
def a_deleted_key_forgets_its_index() -> None:
    erase = KeyValues.erase

    def forgetful(self: KeyValues, key: str) -> None:
        erase(self, key)
        self._tombstones.clear()
        self._buried.clear()

    KeyValues.erase = forgetful


# What is written


@mutant
def cas_passes_over_the_index() -> None:
    kv.cas = lambda store, key, value, flags, _: kv.put(store, key, value, flags)


@mutant
def cas_races_at_times() -> None:
    """It is decided by what was there a moment before."""
    older, cas = remembers_older(), kv.cas

    def raced(store: Any, key: str, value: bytes, flags: int, index: int) -> Entry | None:
        before = older.get(key)
        if before and before.modify_index == index and at_times(0.5):
            return kv.put(store, key, value, flags)
        return cas(store, key, value, flags, index)

    kv.cas = raced


@mutant
def a_write_is_answered_and_not_done_at_times() -> None:
    put = kv.put

    def lost(store: Any, key: str, value: bytes | None, flags: int) -> Entry:
        old = store.get(key)
        return old if old and at_times(0.05) else put(store, key, value, flags)

    kv.put = lost


@mutant
def a_write_is_done_again_later_at_times() -> None:
    submit = Engine.submit
    again: set[asyncio.Task[Any]] = set()

    async def repeated(self: Engine, command: commands.Command, *more: Any) -> Any:
        answer = await submit(self, command, *more)
        if isinstance(command, commands.KvPut) and at_times(0.2):
            loop = asyncio.get_running_loop()
            loop.call_later(0.02, lambda: again.add(loop.create_task(submit(self, command, *more))))
        return answer

    Engine.submit = repeated


@mutant
def flags_are_lost() -> None:
    put = kv.put
    kv.put = lambda store, key, value, _: put(store, key, value, 0)


@mutant
def a_write_creates_the_key_anew() -> None:
    write = KeyValues.write

    def created(self: KeyValues, entry: Entry) -> None:
        write(self, msgspec.structs.replace(entry, create_index=entry.modify_index))

    KeyValues.write = created


# Transactions


@mutant
def a_transaction_is_half_done_at_times() -> None:
    whole = txn.Draft.carry_out

    def half(self: txn.Draft) -> None:
        if at_times(0.2) and len(self._drafted) > 1:
            self._drafted.popitem()
        whole(self)

    txn.Draft.carry_out = half


@mutant
def a_refused_transaction_is_begun() -> None:
    write = txn.Draft.write

    def at_once(self: txn.Draft, entry: Entry) -> None:
        write(self, entry)
        self._store.write(entry)

    txn.Draft.write = at_once


# Locks and sessions


@mutant
def two_may_hold_a_lock() -> None:
    lock = kv.lock

    def taken(store: Any, key: str, value: bytes | None, flags: int, session: str) -> Entry | None:
        old = store.get(key)
        return lock(store, key, value, flags, session) or kv._write(
            store, old, key, value, flags, session=session, lock_index=old.lock_index + 1
        )

    kv.lock = taken


@mutant
def anybody_may_release_a_lock() -> None:
    unlock = kv.unlock

    def freed(store: Any, key: str, value: bytes | None, flags: int, session: str) -> Entry | None:
        old = store.get(key)
        return unlock(store, key, value, flags, (old and old.session) or session)

    kv.unlock = freed


@mutant
def an_ended_session_keeps_its_locks() -> None:
    Sessions._let_go = lambda *_: None


@mutant
def a_session_that_should_delete_releases() -> None:
    let_go = Sessions._let_go

    def released(self: Sessions, session: Any, *more: Any) -> None:
        let_go(self, msgspec.structs.replace(session, behavior="release"), *more)

    Sessions._let_go = released


@mutant
def an_ended_session_may_lock() -> None:
    Machine._may_lock = lambda *_: True


def main() -> None:
    from milkrun.cli import main as milkrun

    MUTANTS[sys.argv[1]]()
    sys.argv[:2] = ["milkrun"]
    milkrun()


if __name__ == "__main__":
    main()
