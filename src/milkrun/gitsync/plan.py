"""What has to change in the registry so that it says what a commit says. Pure.

    wish + what is there  →  Change    one transaction, guarded by the index at which the mark was read
                          →  InSync    nothing to do
                          →  Held      not done, and why

Invariants
- A key that is not wanted and that no mark ever called owned is not touched.
- A generation older than the one that is there is never written (I4).
- A change is one transaction of 64 operations at most, or none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from milkrun.consul import keys
from milkrun.consul.wire import UNREADABLE, Pair
from milkrun.model import CommitMark, ServiceName, Wish
from milkrun.settings.deploy import plain_number

OPERATIONS_AT_MOST = 64
_GUARDS = 2  # the session's and the mark's


class OwnedMark(CommitMark, frozen=True, kw_only=True):
    """The mark as gitsync stores it: with the keys that it wrote, and that it may take away again."""

    owned: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction. `guard` is the key that says which commit is there; its value None takes it away.

    `index` is the guard's ModifyIndex as it was read, 0 when there was none.
    """

    guard: str
    index: int
    value: bytes | None
    puts: dict[str, bytes] = {}
    deletes: list[str] = []
    same_commit: bool = False


class InSync(msgspec.Struct, frozen=True):
    """The registry says it already."""


class Held(msgspec.Struct, frozen=True):
    """The change is not made. `refused`: for the file's sake; else because of what the registry says."""

    why: str
    refused: bool = False


Decision: TypeAlias = Change | InSync | Held


def wish_keys(service: ServiceName, wish: Wish) -> dict[str, bytes]:
    """The keys, with their values, that a deploy file becomes."""
    found: dict[str, bytes] = {}
    for version, fields in wish.versions.items():
        if fields.weight is not None:
            found[keys.weight(service, version)] = str(plain_number(fields.weight)).encode()
        if fields.replicas is not None:
            found[keys.replicas(service, version)] = str(fields.replicas).encode()
    if wish.maintenance:
        found[keys.maintenance(service)] = b"true"
    return found


def is_published(stored: Pair | None) -> bool:
    """Whether this is a service's mark that gitsync wrote, with keys beside it."""
    mark = _decoded(stored, OwnedMark)
    return mark is not None and bool(mark.owned)


def plan_wish(service: ServiceName, wish: Wish | None, pairs: Iterable[Pair], mark: CommitMark) -> Decision:
    """What to do for a service whose deploy file asks for `wish` at the commit `mark` (None: it is gone).

    `pairs` is everything that is under the service's prefix now. The mark of a service that is gone stays:
    with no version beside it, it tells agents and routers that git asks for nothing any more, where no mark at
    all could as well be a registry that lost its data.
    """
    there = {pair.key: pair for pair in pairs}
    guard = keys.commit(service)
    stored = there.get(guard)
    before = _decoded(stored, OwnedMark)
    if before and before.generation > mark.generation:
        return _older(before, mark)
    owned = _owned(service, before)
    if wish is None:
        if before is None or not before.owned:
            return InSync()
        gone = OwnedMark(commit=mark.commit, generation=mark.generation, time=mark.time)
        deletes = sorted(owned & there.keys())
        value = msgspec.json.encode(gone)
        return _bounded(Change(guard=guard, index=_index(stored), value=value, deletes=deletes))
    wants = wish_keys(service, wish)
    after = OwnedMark(
        commit=mark.commit, generation=mark.generation, time=mark.time, owned=tuple(sorted(wants))
    )
    puts = {key: value for key, value in wants.items() if key not in there or there[key].data != value}
    deletes = sorted((owned - wants.keys()) & there.keys())
    if not puts and not deletes and before == after:
        return InSync()
    return _bounded(
        Change(
            guard=guard,
            index=_index(stored),
            value=msgspec.json.encode(after),
            puts=puts,
            deletes=deletes,
            same_commit=before is not None and before.commit == mark.commit,
        )
    )


def plan_published(key: str, published: Any, stored: Pair | None) -> Decision:
    """What to do so that `key` says the same settings as `published` (a PublishedEnvironment or -Service).

    Settings that are the same already keep the mark of the commit that they came with.
    """
    before = _decoded(stored, type(published))
    if before and before.settings == published.settings:
        return InSync()
    if before and before.mark.generation > published.mark.generation:
        return _older(before.mark, published.mark)
    return Change(guard=key, index=_index(stored), value=msgspec.json.encode(published))


def plan_unpublished(stored: Pair, mark: CommitMark, shape: Any) -> Decision:
    """What to do with published settings whose file is no longer there at the commit `mark`."""
    before = _decoded(stored, shape)
    if before and before.mark.generation > mark.generation:
        return _older(before.mark, mark)
    return Change(guard=stored.key, index=stored.modify_index, value=None)


def _owned(service: ServiceName, mark: OwnedMark | None) -> set[str]:
    """The keys that gitsync wrote: of these, whatever the mark says, only those of the service."""
    prefix = keys.wish_prefix(service)
    return {
        key for key in (mark.owned if mark else ()) if key.startswith(prefix) and key != keys.commit(service)
    }


def _bounded(change: Change) -> Decision:
    count = len(change.puts) + len(change.deletes) + _GUARDS
    if count <= OPERATIONS_AT_MOST:
        return change
    return Held(
        f"it changes {len(change.puts) + len(change.deletes)} keys at once and only "
        f"{OPERATIONS_AT_MOST - _GUARDS} fit in one transaction; take old versions out in a commit of their own",
        refused=True,
    )


def _older(before: CommitMark, mark: CommitMark) -> Held:
    return Held(
        f"the registry has the commit {before.commit[:10]} (number {before.generation} in the history) and git "
        f"went back to {mark.commit[:10]} (number {mark.generation}); an older state is not written over a "
        "newer one: `git revert` takes a change back with a new commit"
    )


def _index(stored: Pair | None) -> int:
    return stored.modify_index if stored else 0


def _decoded(stored: Pair | None, shape: Any) -> Any:
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored.data, type=shape)
    except UNREADABLE:
        return None
