"""The KV store and what each verb does to it. Pure.

The verbs work on anything that reads, writes and erases entries: the store itself, or a transaction's draft.
Semantics: Consul's, checked by the contract suite. Writing what is already there changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Protocol

import msgspec

from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import Entry

TOMBSTONES_AT_MOST = 4096
KIND = "kv"


class Entries(Protocol):
    """What the verbs need of a store."""

    @property
    def coming_index(self) -> int:
        """The index that this command's changes carry."""

    def get(self, key: str) -> Entry | None:
        """The entry, None when there is none."""

    def under(self, prefix: str) -> list[Entry]:
        """The entries whose key starts with `prefix`, by key."""

    def write(self, entry: Entry) -> None:
        """The entry is there."""

    def erase(self, key: str) -> None:
        """The key is not there."""


class KeyValues:
    """The entries by key, in order, with the index of what was lately deleted."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._tombstones: dict[str, int] = {}
        self._buried: list[str] = []
        self._floor = ledger.index
        self.held: dict[str, set[str]] = {}
        """The keys that each session holds."""

    @property
    def count(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def load(self, entries: list[Entry]) -> None:
        """The entries from the disk are there; only before anything else happens."""
        self._entries = {entry.key: entry for entry in entries}
        self._keys = sorted(self._entries)
        for entry in entries:
            self._hold(entry)

    @property
    def coming_index(self) -> int:
        """The index that this command's changes carry."""
        return self._ledger.coming_index

    def get(self, key: str) -> Entry | None:
        """The entry, None when there is none."""
        return self._entries.get(key)

    def under(self, prefix: str) -> list[Entry]:
        """The entries whose key starts with `prefix`, by key."""
        return [self._entries[key] for key in _starting(self._keys, prefix)]

    def names(self, prefix: str, separator: str, visible: Callable[[str], bool] | None = None) -> list[str]:
        """The keys under `prefix` that are visible, cut after the first `separator` that follows it; each once."""
        found: list[str] = []
        for key in _starting(self._keys, prefix):
            if visible and not visible(key):
                continue
            cut = key.find(separator, len(prefix)) if separator else -1
            name = key if cut < 0 else key[: cut + len(separator)]
            if not found or found[-1] != name:
                found.append(name)
        return found

    def index_of(self, key: str) -> int:
        """The index at which the key was last written or deleted."""
        entry = self._entries.get(key)
        return entry.modify_index if entry else self._tombstones.get(key, self._floor)

    def index_under(self, prefix: str) -> int:
        """The index at which anything under `prefix` was last written or deleted, or a later one."""
        newest = self._floor
        for key in _starting(self._keys, prefix):
            newest = max(newest, self._entries[key].modify_index)
        for key in _starting(self._buried, prefix):
            newest = max(newest, self._tombstones[key])
        return newest

    def write(self, entry: Entry) -> None:
        """The entry is there, on its way to the disk, and its watchers will wake."""
        old = self._entries.get(entry.key)
        if old is None:
            insort(self._keys, entry.key)
            if self._tombstones.pop(entry.key, None) is not None:
                del self._buried[bisect_left(self._buried, entry.key)]
        else:
            self._let_go(old)
        self._entries[entry.key] = entry
        self._hold(entry)
        self._ledger.put(KIND, entry.key, entry)
        self._ledger.touched_keys.append(entry.key)

    def erase(self, key: str) -> None:
        """The key is not there; its tombstone keeps the index."""
        old = self._entries.pop(key)
        self._let_go(old)
        del self._keys[bisect_left(self._keys, key)]
        self._ledger.drop(KIND, key)
        self._ledger.touched_keys.append(key)
        self._tombstones[key] = self._ledger.index
        insort(self._buried, key)
        if len(self._buried) > TOMBSTONES_AT_MOST:
            self._floor = self._ledger.index
            self._tombstones.clear()
            self._buried.clear()

    def _hold(self, entry: Entry) -> None:
        if entry.session:
            self.held.setdefault(entry.session, set()).add(entry.key)

    def _let_go(self, entry: Entry) -> None:
        if entry.session:
            keys = self.held[entry.session]
            keys.discard(entry.key)
            if not keys:
                del self.held[entry.session]


def _starting(ordered: list[str], prefix: str) -> list[str]:
    start = end = bisect_left(ordered, prefix)
    while end < len(ordered) and ordered[end].startswith(prefix):
        end += 1
    return ordered[start:end]


# The verbs


def put(store: Entries, key: str, value: bytes | None, flags: int) -> Entry:
    """The key has the value, and its holder keeps it; the lock count is forgotten, as Consul does."""
    old = store.get(key)
    return _write(store, old, key, value, flags, session=old.session if old else msgspec.UNSET, lock_index=0)


def cas(store: Entries, key: str, value: bytes | None, flags: int, index: int) -> Entry | None:
    """The key has the value, if its ModifyIndex was `index` (0: if there was no such key); else None."""
    old = store.get(key)
    if (old.modify_index if old else 0) != index:
        return None
    return put(store, key, value, flags)


def lock(store: Entries, key: str, value: bytes | None, flags: int, session: str) -> Entry | None:
    """The key has the value and is held by the session; None when another session holds it."""
    old = store.get(key)
    if old and old.session and old.session != session:
        return None
    count = old.lock_index if old else 0
    if not old or not old.session:
        count += 1
    return _write(store, old, key, value, flags, session=session, lock_index=count)


def unlock(store: Entries, key: str, value: bytes | None, flags: int, session: str) -> Entry | None:
    """The key has the value and is held by nobody; None when the session did not hold it."""
    old = store.get(key)
    if not old or not old.session or old.session != session:
        return None
    return _write(store, old, key, value, flags, session=msgspec.UNSET, lock_index=old.lock_index)


def delete(store: Entries, key: str) -> None:
    """The key is not there; it may not have been."""
    if store.get(key):
        store.erase(key)


def delete_cas(store: Entries, key: str, index: int) -> bool:
    """The key is not there; False when it is, with another ModifyIndex."""
    old = store.get(key)
    if old and old.modify_index != index:
        return False
    delete(store, key)
    return True


def delete_tree(store: Entries, prefix: str) -> None:
    """No key starts with `prefix`."""
    for entry in store.under(prefix):
        store.erase(entry.key)


def _write(
    store: Entries,
    old: Entry | None,
    key: str,
    value: bytes | None,
    flags: int,
    *,
    session: str | msgspec.UnsetType,
    lock_index: int,
) -> Entry:
    value = value or None
    if (
        old
        and old.value == value
        and old.flags == flags
        and old.session == session
        and old.lock_index == lock_index
    ):
        return old
    index = store.coming_index
    entry = Entry(
        key=key,
        value=value,
        flags=flags,
        session=session,
        lock_index=lock_index,
        create_index=old.create_index if old else index,
        modify_index=index,
    )
    store.write(entry)
    return entry
