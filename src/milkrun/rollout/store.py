"""Rollouts in the registry: what only the engine that holds the lock may write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import structlog

from milkrun.consul import Registry, keys, wire
from milkrun.consul.client import kv_check_session, kv_delete, kv_set
from milkrun.errors import Conflict
from milkrun.model import ServiceName
from milkrun.rollout.receipt import KEPT, Receipt
from milkrun.rollout.state import Entry, Intent, State

ENTRIES_KEPT = 1000


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """All that the registry keeps of one service's rollouts. `intents` are by key, the oldest first."""

    state: State | None = None
    journal: list[Entry] = []
    history: list[Receipt] = []
    intents: dict[str, Intent] = {}


def shelves(pairs: Iterable[wire.Pair]) -> dict[ServiceName, Shelf]:
    """The shelf of each service, from the entries under `milkrun/rollouts/`. What cannot be read is left out."""
    found: dict[ServiceName, Shelf] = {}
    for pair in sorted(pairs, key=lambda pair: pair.create_index):
        service, _, rest = pair.key.removeprefix(keys.ROLLOUTS).partition("/")
        shelf = found.setdefault(ServiceName(service), Shelf())
        try:
            found[ServiceName(service)] = _with(shelf, pair, rest)
        except wire.UNREADABLE as error:
            structlog.get_logger("rollouts").error(
                "an entry is not what it should be, and is left alone", key=pair.key, why=str(error)
            )
    return found


def _with(shelf: Shelf, pair: wire.Pair, part: str) -> Shelf:
    match part:
        case "state":
            return msgspec.structs.replace(shelf, state=msgspec.json.decode(pair.data, type=State))
        case "journal":
            return msgspec.structs.replace(shelf, journal=msgspec.json.decode(pair.data, type=list[Entry]))
        case "history":
            return msgspec.structs.replace(shelf, history=msgspec.json.decode(pair.data, type=list[Receipt]))
        case _ if part.startswith("intents/"):
            intent = msgspec.json.decode(pair.data, type=Intent)
            return msgspec.structs.replace(shelf, intents={**shelf.intents, pair.key: intent})
    return shelf


class Store:
    """Writes under the engine's lock: all of it at once, or, without the lock, nothing."""

    def __init__(self, registry: Registry, session: str) -> None:
        self._registry = registry
        self._session = session

    async def read(self, service: ServiceName) -> Shelf:
        """What there is of a service."""
        pairs = await self._registry.entries(f"{keys.ROLLOUTS}{service}/")
        return shelves(pairs).get(service, Shelf())

    async def save(
        self,
        service: ServiceName,
        *,
        state: State | None,
        journal: list[Entry] | None,
        taken: Iterable[str] = (),
        history: list[Receipt] | None = None,
    ) -> None:
        """What is given is stored, and the intents that were taken up are gone. Raises Conflict without the lock."""
        operations = [kv_check_session(keys.ENGINE_LOCK, self._session)]
        if state is not None:
            operations.append(kv_set(keys.rollout_state(service), msgspec.json.encode(state)))
        if journal is not None:
            operations.append(
                kv_set(keys.rollout_journal(service), msgspec.json.encode(journal[-ENTRIES_KEPT:]))
            )
        if history is not None:
            operations.append(kv_set(keys.rollout_history(service), msgspec.json.encode(history[-KEPT:])))
        operations += [kv_delete(key) for key in list(taken)[:50]]
        answer = await self._registry.txn(operations)
        if answer.errors:
            raise Conflict(f"another engine has taken over ({answer.errors[0].what})")


async def next_epoch(registry: Registry, session: str) -> int:
    """A number greater than that of any engine before. Raises Conflict when the lock is no longer the session's."""
    while True:
        pair = await registry.get(keys.ENGINE_EPOCH)
        epoch = int(pair.data or b"0") + 1 if pair else 1
        if await registry.put(keys.ENGINE_EPOCH, str(epoch).encode(), cas=pair.modify_index if pair else 0):
            lock = await registry.get(keys.ENGINE_LOCK)
            if not lock or lock.session != session:
                raise Conflict("another engine has taken over")
            return epoch
        await asyncio.sleep(0.05)
