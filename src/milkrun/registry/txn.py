"""Transactions over the KV store and the catalog: all operations hold and are done, or none is. Pure.

Verbs and error texts: Consul's (agent/consul/state/txn.go, observed on 1.8.7 by the contract suite).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

import msgspec

from milkrun.registry import catalog_ops, kv
from milkrun.registry.commands import AnyOp, CheckOp, NodeOp, ServiceOp, TxnOp
from milkrun.registry.drafts import CatalogDraft
from milkrun.registry.nouns import Check, Entry, Node, Service
from milkrun.registry.refusal import Refused

OPERATIONS_AT_MOST = 64
READS = frozenset({"get", "get-tree", "check-index", "check-session", "check-not-exists"})


class TxnError(msgspec.Struct, frozen=True):
    """Which operation did not hold, and why."""

    OpIndex: int
    What: str


Shown = Entry | Node | Service | Check


class TxnResult(msgspec.Struct, frozen=True):
    """What a transaction gave. With errors there are no results, and nothing changed."""

    Results: list[dict[str, Shown]] | None
    Errors: list[TxnError] | None


class Draft:
    """What the store would be after the operations so far."""

    def __init__(self, store: kv.KeyValues) -> None:
        self._store = store
        self._drafted: dict[str, Entry | None] = {}

    @property
    def coming_index(self) -> int:
        """The index that the transaction's changes carry."""
        return self._store.coming_index

    def get(self, key: str) -> Entry | None:
        """The entry, None when there is none."""
        return self._drafted[key] if key in self._drafted else self._store.get(key)

    def under(self, prefix: str) -> list[Entry]:
        """The entries whose key starts with `prefix`, by key."""
        found: dict[str, Entry | None] = {entry.key: entry for entry in self._store.under(prefix)}
        found |= {key: entry for key, entry in self._drafted.items() if key.startswith(prefix)}
        return [entry for _, entry in sorted(found.items()) if entry is not None]

    def write(self, entry: Entry) -> None:
        """The entry is drafted."""
        self._drafted[entry.key] = entry

    def erase(self, key: str) -> None:
        """The key's deletion is drafted."""
        self._drafted[key] = None

    def carry_out(self) -> None:
        """The store is what the draft said."""
        for key, entry in self._drafted.items():
            if entry is not None:
                self._store.write(entry)
            elif self._store.get(key) is not None:
                self._store.erase(key)


def run(
    store: kv.KeyValues,
    catalog: CatalogDraft,
    operations: Sequence[AnyOp],
    may_lock: Callable[[str, str], bool],
) -> TxnResult:
    """The transaction's result. `may_lock(session, key)` is False in a lock-delay; it refuses a dead session."""
    draft = Draft(store)
    results: list[dict[str, Shown]] = []
    errors: list[TxnError] = []
    only_reads = all(operation.verb in READS for operation in operations)
    for place, operation in enumerate(operations):
        try:
            match operation:
                case TxnOp():
                    results += [{"KV": entry} for entry in _step(draft, operation, may_lock)]
                case NodeOp():
                    results += [{"Node": each} for each in catalog_ops.node_step(catalog, operation)]
                case ServiceOp():
                    found = catalog_ops.service_step(catalog, operation, only_reads=only_reads)
                    results += [{"Service": each} for each in found]
                case CheckOp():
                    results += [{"Check": each} for each in catalog_ops.check_step(catalog, operation)]
                case _:
                    assert_never(operation)
        except Refused as refusal:
            errors.append(TxnError(place, refusal.message))
    if errors:
        return TxnResult(None, errors)
    draft.carry_out()
    catalog.carry_out()
    return TxnResult(results, None)


def _step(draft: Draft, operation: TxnOp, may_lock: Callable[[str, str], bool]) -> list[Entry]:
    """The entries that the operation shows; their values only where it asked for them."""
    entries = _entries(draft, operation, may_lock)
    if operation.verb in ("get", "get-tree"):
        return entries
    return [msgspec.structs.replace(entry, value=None) for entry in entries]


def _entries(draft: Draft, operation: TxnOp, may_lock: Callable[[str, str], bool]) -> list[Entry]:
    verb = operation.verb
    if not operation.key and verb not in ("get-tree", "delete-tree"):
        raise _no("Must provide key")
    if verb in ("set", "cas", "lock", "unlock"):
        return [_put(draft, operation, may_lock)]
    if verb in ("delete", "delete-cas", "delete-tree"):
        _remove(draft, operation)
        return []
    return _look(draft, operation)


def _put(draft: Draft, operation: TxnOp, may_lock: Callable[[str, str], bool]) -> Entry:
    key, value, flags, session = operation.key, operation.value, operation.flags, operation.session
    match operation.verb:
        case "set":
            return kv.put(draft, key, value, flags)
        case "cas":
            done = kv.cas(draft, key, value, flags, operation.index)
            return _held(done, f'failed to set key "{key}", index is stale')
        case "lock":
            if not may_lock(session, key):
                raise _no(f'failed to lock key "{key}" due to lock delay')
            done = kv.lock(draft, key, value, flags, session)
            return _held(done, f'failed to lock key "{key}", lock is already held')
        case _:
            done = kv.unlock(draft, key, value, flags, session)
            return _held(
                done, f'failed to unlock key "{key}", lock isn\'t held, or is held by another session'
            )


def _remove(draft: Draft, operation: TxnOp) -> None:
    match operation.verb:
        case "delete":
            kv.delete(draft, operation.key)
        case "delete-cas":
            if not kv.delete_cas(draft, operation.key, operation.index):
                raise _no(f'failed to delete key "{operation.key}", index is stale')
        case _:
            kv.delete_tree(draft, operation.key)


def _look(draft: Draft, operation: TxnOp) -> list[Entry]:
    key = operation.key
    entry = draft.get(key)
    match operation.verb:
        case "get-tree":
            return draft.under(key)
        case "get":
            return [_held(entry, f'key "{key}" doesn\'t exist')]
        case "check-index":
            found = _held(entry, f'failed to check index, key "{key}" doesn\'t exist')
            if found.modify_index != operation.index:
                now = f"current modify index {found.modify_index} != {operation.index}"
                raise _no(f'failed index check for key "{key}", {now}')
            return [found]
        case "check-session":
            found = _held(entry, f'failed to check session, key "{key}" doesn\'t exist')
            holder = found.session or ""
            if holder != operation.session:
                now = f'current session "{holder}" != "{operation.session}"'
                raise _no(f'failed session check for key "{key}", {now}')
            return [found]
        case "check-not-exists":
            if entry:
                raise _no(f'key "{key}" exists')
            return []
        case unknown:
            raise _no(f'unknown KV verb "{unknown}"')


def _held(entry: Entry | None, why: str) -> Entry:
    if entry is None:
        raise _no(why)
    return entry


def _no(why: str) -> Refused:
    return Refused(409, why)
