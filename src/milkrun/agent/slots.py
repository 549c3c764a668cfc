"""The slots in the registry: keys that an agent holds by a lock under its session."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from milkrun.agent.plan import Holder, Slot
from milkrun.consul import Registry, keys, wire
from milkrun.errors import InputRefused
from milkrun.model import InstanceId, service_name, version_name

_NUMBER_DIGITS_AT_MOST = 6


class _Value(msgspec.Struct):
    host: str = "an unknown host"
    instance: str = "an unknown instance"


def read(pairs: Iterable[wire.Pair]) -> dict[Slot, Holder]:
    """Who holds which slot. Keys that name no slot are passed over."""
    found = {}
    for pair in pairs:
        if slot := _slot(pair.key):
            try:
                value = msgspec.json.decode(pair.data, type=_Value)
            except wire.UNREADABLE:
                value = _Value()
            found[slot] = Holder(session=pair.session or "", host=value.host, instance=value.instance)
    return found


async def take(registry: Registry, session: str, slot: Slot, host: str, instance: InstanceId) -> bool:
    """True when the slot is held under the session, as it may have been before."""
    value = msgspec.json.encode(_Value(host=host, instance=instance))
    return await registry.put(_key(slot), value, acquire=session)


async def give_back(registry: Registry, session: str, slot: Slot) -> None:
    """The session does not hold the slot. Another holder's key is left alone."""
    pair = await registry.get(_key(slot))
    if pair is not None and session and pair.session == session:
        await registry.delete(_key(slot), cas=pair.modify_index)


def _key(slot: Slot) -> str:
    return keys.slot(slot.service, slot.version, slot.number)


def _slot(key: str) -> Slot | None:
    parts = key.removeprefix(keys.SLOTS).split("/")
    if (
        len(parts) != 3
        or len(parts[2]) > _NUMBER_DIGITS_AT_MOST
        or not (parts[2].isascii() and parts[2].isdigit())
    ):
        return None
    try:
        return Slot(service_name(parts[0]), version_name(parts[1]), int(parts[2]))
    except InputRefused:
        return None
