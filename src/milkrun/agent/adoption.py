"""What an earlier agent left running here: its units are taken over, the rest is stopped."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import msgspec
import structlog

from milkrun.agent.plan import Slot
from milkrun.agent.records import Record, Records
from milkrun.agent.units.marked import marked
from milkrun.host.process import Identity, runs


def recover(records: Records, state: str) -> list[Record]:
    """One record a slot, each with the identity of its process if that can be found at all.

    An agent that was killed between starting a process and writing its pid left the pid out: then the
    process's own environment names its instance.
    """
    leaders = {found.instance: found.identity for found in marked(state) if found.leader}
    kept: dict[Slot, Record] = {}
    for record in records.load():
        known = record.identity
        if known is None or not runs(known):
            known = leaders.get(record.instance)
        if record.slot in kept:
            structlog.get_logger("agent").error(
                "a second record of a slot is dropped", instance=record.instance
            )
            records.remove(record.instance)
            continue
        kept[record.slot] = msgspec.structs.replace(record, identity=known)
    return list(kept.values())


def strays(state: str, instances: AbstractSet[str]) -> list[Identity]:
    """Processes started by an agent with this state folder that belong to none of its units."""
    return [found.identity for found in marked(state) if found.leader and found.instance not in instances]
