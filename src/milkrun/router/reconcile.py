"""One service's loop: facts in, decision, difference, operations, read back. Level-triggered: it can start
anywhere, be interrupted anywhere, and ends in the same place (I3).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog

from milkrun.errors import DataPlaneError
from milkrun.model import (
    Instance,
    InstanceId,
    InstanceTraffic,
    ServiceName,
    VersionName,
    VersionTraffic,
    Wish,
)
from milkrun.router import disk, traffic
from milkrun.router.desired import Decision, Known, Mode, RoutingState, desired, sentence
from milkrun.router.diff import Observed, Operation, Remove, diff, leaving, said, settled
from milkrun.router.ejection import Ejections, without
from milkrun.router.instance_traffic import InstanceLedger
from milkrun.router.plane import DataPlane
from milkrun.router.traffic import Ledger
from milkrun.settings.service import EjectionSettings

PASSES_AT_MOST = 8


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says now of the service, all of it read at least once. `index` is the catalog's."""

    instances: list[Instance]
    wish: Wish
    index: int


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What was true when the loop last looked: the decision, what the data plane does, and since when."""

    decision: Decision
    observed: Observed
    index: int
    applied_at: float
    drift: list[str] = []
    busy: bool = False

    def instances(self, former_workers: int) -> dict[InstanceId, InstanceTraffic]:
        """Each server as the router's report says it; drained means that no process has a request for it."""
        found: dict[InstanceId, InstanceTraffic] = {}
        for servers in self.observed.versions.values():
            for name, seen in servers.items():
                idle = seen.in_flight == 0 and former_workers == 0
                draining = "drained" if idle else "draining"
                state = "serving" if seen.takes else draining
                if name not in found or state == "serving":  # it may be in two versions: what serves counts
                    found[name] = InstanceTraffic(state=state, in_flight=seen.in_flight)
        return found


class Reconciler:
    """Keeps one data plane equal to what the registry's facts ask for."""

    def __init__(
        self,
        service: ServiceName,
        plane: DataPlane,
        folder: Path,
        *,
        accept_older: bool = False,
        ejection: EjectionSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._plane = plane
        self._file = folder / f"{service}.known.json"
        self._ledger = Ledger()
        self._each = InstanceLedger()
        self.former: list[str] = []
        self._ejection = ejection or EjectionSettings()
        self._ejections = Ejections()
        self._aside: dict[InstanceId, str] = {}
        self._clock = clock
        self._said = ""
        self._log = structlog.get_logger("router")
        self.known = self._remembered(accept_older=accept_older)
        self.served: Served | None = None
        self._seen: Facts | None = None
        self._read: Observed | None = None
        self._looking: asyncio.Timeout | None = None
        self._given_up = False

    def _remembered(self, *, accept_older: bool) -> Known:
        known = disk.load(self._file, Known) or Known()
        if not accept_older:
            return known
        wish = msgspec.structs.replace(known.wish, mark=None)
        return msgspec.structs.replace(known, wish=wish, commit=None, generation=0)

    async def reconcile(self, facts: Facts) -> Served | None:
        """The data plane does what the facts ask for, as far as it can now.

        News is acted on at once, from what was read back last; whether that was right is seen by reading again.
        `busy` in the result asks to be called again soon: something drains, or was not obeyed. None when it only
        looked whether all is still as it was, and was told to `hurry`.
        """
        shares = await self._at_once(facts)
        observed = await self._look()
        if observed is None:
            return None
        decision = self._decided(observed, facts)
        wanted = self._without_aside(decision.state, observed)
        moved = (observed.shares if shares is None else shares) != wanted.shares
        operations = diff(observed, wanted)
        await self._apply(operations, wanted)  # also with none: the files and the pool are looked after
        for _ in range(PASSES_AT_MOST):
            if not operations:
                break
            observed = await self._plane.observe()
            before, operations = operations, diff(observed, wanted)
            if operations == before:
                break  # it was not obeyed; asking again at once would not help
            if operations:
                await self._apply(operations, wanted)
        if moved:
            await self._count()
            self._ledger = self._ledger.new_window()
        self._say(decision)
        self._read = observed
        done = settled(observed, wanted)
        last = self.served
        changed = last is None or last.decision.known != decision.known or moved
        self.served = Served(
            decision=decision,
            observed=observed,
            index=facts.index if done else last.index if last else 0,
            applied_at=time.time() if changed or last is None or last.drift else last.applied_at,
            drift=[] if done else [said(operation) for operation in diff(observed, wanted)][:10],
            busy=not done or leaving(observed, wanted) or _draining(observed, wanted),
        )
        return self.served

    async def _at_once(self, facts: Facts) -> dict[VersionName, int] | None:
        """The facts are acted on, if they are news and something was read back before; the shares until then."""
        news = self._seen is None or (facts.instances, facts.wish) != (self._seen.instances, self._seen.wish)
        self._seen = facts
        if not news:
            return None
        before, self._read = self._read, None  # what is half done when this fails must be read again
        if before is None:
            return None
        wanted = self._without_aside(self._decided(before, facts).state, before)
        if operations := diff(before, wanted):
            await self._apply(operations, wanted)
        return before.shares

    async def _look(self) -> Observed | None:
        """What the data plane does now; None when that was given up for news, which the last look is enough for.

        Never twice in a row: news without end does not keep it from being seen what came of it.
        """
        before, self._read = self._read, None
        given_up, self._given_up = self._given_up, False
        if before is None or given_up:
            return await self._plane.observe()
        try:
            async with asyncio.timeout(None) as self._looking:
                return await self._plane.observe()
        except TimeoutError:
            self._read, self._given_up = before, True
            return None
        finally:
            self._looking = None

    def hurry(self) -> None:
        """There is news: if it now only looks whether all is still as it was, that is given up."""
        if self._looking:
            self._looking.reschedule(asyncio.get_running_loop().time())
            self._looking = None

    def _decided(self, observed: Observed, facts: Facts) -> Decision:
        """The decision from the facts and what the data plane sees itself; it is on disk before it is followed."""
        decision = desired(facts.instances, facts.wish, self.known, down=_down(observed))
        self._remember(decision.known)
        return decision

    def _without_aside(self, state: RoutingState, observed: Observed) -> RoutingState:
        """The state as it is served: without those whom traffic says to put aside for a while."""
        before, self._aside = self._aside, self._out(state, observed)
        for name in self._aside.keys() - before.keys():
            self._log.warning(self._aside[name], service=self._service)
        for name in before.keys() - self._aside.keys():
            self._log.info("an instance that was put aside is so no more", instance=name)
        return without(state, self._aside)

    def _out(self, state: RoutingState, observed: Observed) -> dict[InstanceId, str]:
        return self._ejections.out(state, self._clock(), down=_down(observed))

    @property
    def aside(self) -> list[str]:
        """Who was put aside because of what traffic says, and why."""
        return list(self._aside.values())

    @property
    def restless(self) -> bool:
        """Whether others should be aside now than when the data plane was last told."""
        last = self.served
        return last is not None and self._out(last.decision.state, last.observed).keys() != self._aside.keys()

    async def count(self) -> None:
        """The versions' figures are of now."""
        if self.served:
            await self._count()

    def traffic(self) -> dict[VersionName, VersionTraffic]:
        """The versions' figures, as last counted."""
        return self._ledger.report(self.served.observed.shares) if self.served else {}

    def instances(self, former_workers: int) -> dict[InstanceId, InstanceTraffic]:
        """Each server as the router's report says it, with its figures as last counted."""
        return self._each.report(self.served.instances(former_workers)) if self.served else {}

    async def _apply(self, operations: Sequence[Operation], wanted: RoutingState) -> None:
        """The operations are carried out. What leaves is counted before it is gone, if that can be done."""
        if any(isinstance(operation, Remove) for operation in operations):
            with contextlib.suppress(DataPlaneError):
                await self._count()
        await self._plane.apply(operations, wanted)

    async def _count(self) -> None:
        counted = await self._plane.traffic()
        self._ledger = self._ledger.read(counted)
        self._each = self._each.read(counted)
        self.former = traffic.former(counted)
        if self.served:
            state = self.served.decision.state
            self._ejections = self._ejections.judged(self._each.total, state, self._clock(), self._ejection)

    def _remember(self, known: Known) -> None:
        """The decision is on disk before the data plane follows it: an older one is refused also after a crash."""
        if known != self.known:
            disk.write(self._file, msgspec.json.encode(known))
            self.known = known

    def _say(self, decision: Decision) -> None:
        said = sentence(self._service, decision.state)
        reasons = [*decision.held, *decision.alarms]
        if (line := "; ".join([said, *reasons])) != self._said:
            self._said = line
            (self._log.warning if reasons else self._log.info)(line)


def _down(observed: Observed) -> frozenset[InstanceId]:
    """The servers that the data plane itself cannot connect to."""
    return frozenset(
        name for servers in observed.versions.values() for name, seen in servers.items() if not seen.up
    )


def _draining(observed: Observed, wanted: RoutingState) -> bool:
    """Whether an instance that leaves service still has requests in flight."""
    return any(
        (server := wanted.versions.get(version, {}).get(name)) is None or server.mode is Mode.DRAIN
        for version, servers in observed.versions.items()
        for name, seen in servers.items()
        if seen.in_flight
    )


__all__ = ["DataPlaneError", "Facts", "Reconciler", "Served"]
