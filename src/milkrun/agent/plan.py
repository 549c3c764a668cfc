"""What to do about the slots, from what is known. Pure.

The rules, in the order in which they matter:
1. What is not known changes nothing. A version stops only when git says so: by a smaller number of replicas,
   or by a commit mark beside which the version is missing.
2. A slot has one unit: one that is still draining here keeps its slot from being claimed here.
3. A slot that another instance holds is not ours: our unit for it stops.
4. A unit whose slot nobody holds (our session ended meanwhile) takes it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from milkrun.model import InstanceId, ServiceName, VersionName, Wish
from milkrun.settings.needs import starting_order
from milkrun.settings.service import ServiceSettings

REPLICAS_AT_MOST = 10_000


class Slot(msgspec.Struct, frozen=True, order=True):
    """One replica of a version, numbered from 0."""

    service: ServiceName
    version: VersionName
    number: int


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a slot: the session of the lock, and what its agent wrote. Empty session: nobody, by now."""

    session: str
    host: str
    instance: str


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of this agent."""

    instance: InstanceId
    draining: bool = False


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that the decision stands on.

    `session` is empty while there is none to lock with. `slots` is None while the registry has not said who
    holds what, `wishes` lacks the services it has not spoken of.
    """

    host: str
    session: str
    services: Mapping[ServiceName, ServiceSettings]
    wishes: Mapping[ServiceName, Wish]
    slots: Mapping[Slot, Holder] | None
    own: Mapping[Slot, Own]


class Claim(msgspec.Struct, frozen=True):
    """Take the slot and start an instance for it."""

    slot: Slot


class Hold(msgspec.Struct, frozen=True):
    """Take the slot again for the instance that runs in it."""

    slot: Slot
    instance: InstanceId


class Stop(msgspec.Struct, frozen=True):
    """Drain and stop the slot's unit."""

    slot: Slot
    reason: str


class Release(msgspec.Struct, frozen=True):
    """Give back a slot that we hold, have no unit for and are not asked for."""

    slot: Slot


Decision = Claim | Hold | Stop | Release


def wanted(wish: Wish | None, version: VersionName) -> int | None:
    """How many replicas git asks for; None when it cannot be known, which is not the same as none."""
    if wish is None:
        return None
    asked = wish.versions.get(version)
    if asked is not None and asked.replicas is not None:
        return min(asked.replicas, REPLICAS_AT_MOST)
    return 0 if wish.mark is not None else None


def plan(view: View) -> list[Decision]:
    """What is to be done now: stops first, then what is kept, then what is new in starting order."""
    stops: list[Decision] = []
    holds: list[Decision] = []
    for slot, own in sorted(view.own.items()):
        if not own.draining:
            match _keep(view, slot, own):
                case Stop() as stop:
                    stops.append(stop)
                case Hold() as hold:
                    holds.append(hold)
    return [*stops, *_releases(view), *holds, *_claims(view)]


def _keep(view: View, slot: Slot, own: Own) -> Stop | Hold | None:
    asked = wanted(view.wishes.get(slot.service), slot.version)
    if asked is not None and slot.number >= asked:
        return Stop(slot, f"git asks for {asked} of {slot.service} {slot.version}")
    if view.slots is None or not view.session:
        return None
    holder = view.slots.get(slot)
    if holder is None or not holder.session:
        return Hold(slot, own.instance)
    if holder.session != view.session and holder.instance != own.instance:
        return Stop(slot, f"its slot is held by {holder.instance} on {holder.host}")
    return None


def _releases(view: View) -> Iterator[Decision]:
    if not view.session:
        return
    for slot, holder in sorted((view.slots or {}).items()):
        asked = wanted(view.wishes.get(slot.service), slot.version)
        ours = holder.session == view.session and slot not in view.own
        if ours and asked is not None and slot.number >= asked:
            yield Release(slot)


def _claims(view: View) -> Iterator[Decision]:
    if view.slots is None or not view.session:
        return
    for service in starting_order({name: settings.needs for name, settings in view.services.items()}):
        hosts = view.services[service].hosts
        wish = view.wishes.get(service)
        if wish is None or (hosts and view.host not in hosts):
            continue
        for version in sorted(wish.versions):
            for number in range(wanted(wish, version) or 0):
                slot = Slot(service, version, number)
                holder = view.slots.get(slot)
                if slot not in view.own and (holder is None or holder.session in ("", view.session)):
                    yield Claim(slot)
