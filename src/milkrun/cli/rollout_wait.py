"""Follows a rollout until it has ended: on a terminal as a tree, else a line for each thing that happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec

from milkrun.cli import terminal
from milkrun.cli.quiet import quiet_logs
from milkrun.cli.rollout_absence import Absence
from milkrun.cli.rollout_text import receipt_lines, tree_lines
from milkrun.consul import Registry, keys, wire
from milkrun.errors import Conflict, Degraded, NotFound, RegistryUnreachable, TimedOut
from milkrun.model import AgentReport, EngineReport, RouterReport, ServiceName
from milkrun.rollout import queue
from milkrun.rollout.state import Cause, Phase
from milkrun.rollout.store import Shelf, shelves
from milkrun.rollout.view import RolloutView, view
from milkrun.settings.text import nearest

if TYPE_CHECKING:
    from rich.live import Live

    from milkrun.consul import Address
    from milkrun.rollout.receipt import Receipt

_T = TypeVar("_T")

LOOK_S = 0.25
SILENCE_S = 30.0
"""A registry that does not answer for so long is no longer waited for: the rollout goes on without us."""
BEGIN_S = 15.0
ENGINES_S = 2.0


async def read(registry: Registry, service: ServiceName) -> tuple[Shelf, RolloutView | None]:
    """The service's shelf, and its newest rollout as it stands."""
    pairs, routers, agents = await asyncio.gather(
        registry.entries(f"{keys.ROLLOUTS}{service}/"),
        registry.entries(f"{keys.ROUTER_REPORTS}{service}/"),
        registry.entries(keys.AGENT_REPORTS),
    )
    shelf = shelves(pairs).get(service, Shelf())
    if shelf.state is None:
        return shelf, None
    reports = [report for pair in routers if (report := _decoded(pair, RouterReport))]
    units = [
        unit
        for pair in agents
        if (agent := _decoded(pair, AgentReport))
        for unit in agent.units
        if unit.service == service
    ]
    return shelf, view(shelf.state, reports, units, time.time(), shelf.intents.values())


def _decoded(pair: wire.Pair, shape: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(pair.data, type=shape)
    except wire.UNREADABLE:
        return None


class Follower:
    """Shows one rollout. `until_end` returns its receipt."""

    def __init__(self, address: Address, service: ServiceName, rollout: str, *, json: bool) -> None:
        self._address, self._service, self._rollout, self._json = address, service, rollout, json
        self._told = 0
        self._began = self._next_since = time.monotonic()
        self._ahead: list[str] = []
        self._absence, self._looked = Absence(), 0.0

    async def until_end(self, timeout_s: float | None) -> Receipt:
        """The receipt. Raises TimedOut while it goes on, Degraded when it was taken back or needs a person, Conflict
        when it was refused.
        """
        quiet_logs()
        live = self._live()
        try:
            async with Registry(self._address) as registry:
                return await self._follow(registry, timeout_s, live)
        finally:
            if live:
                live.stop()

    def _live(self) -> Live | None:
        if self._json or not terminal.can_be_redrawn():
            return None
        from rich.live import Live

        live = Live(auto_refresh=False)
        live.start()
        return live

    async def _follow(self, registry: Registry, timeout_s: float | None, live: Live | None) -> Receipt:
        answered = time.monotonic()
        while True:
            try:
                shelf, seen = await read(registry, self._service)
                answered = time.monotonic()
            except RegistryUnreachable:
                if time.monotonic() - answered > SILENCE_S:
                    raise
                await asyncio.sleep(LOOK_S)
                continue
            for receipt in shelf.history:
                if receipt.rollout == self._rollout:
                    self._show(shelf, seen, live)
                    return _ended(receipt)
            mine = seen if seen and seen.rollout == self._rollout else None
            self._queued(shelf, live)
            if mine:
                self._show(shelf, mine, live)
                _stuck(mine)
            await self._attended(registry, live)
            self._bounded(mine, timeout_s)
            await asyncio.sleep(LOOK_S)

    def _queued(self, shelf: Shelf, live: Live | None) -> None:
        """Whoever waits for a turn knows for whom."""
        ahead = queue.ahead(self._rollout, shelf.intents.values(), shelf.state)
        if ahead:
            self._next_since = time.monotonic()
        if ahead and ahead != self._ahead:
            self._say(behind(self._service, self._rollout, ahead), live)
        self._ahead = ahead

    async def _attended(self, registry: Registry, live: Live | None) -> None:
        """Whoever follows knows when nobody is at it."""
        now = time.monotonic()
        if now - self._looked < ENGINES_S:
            return
        self._looked = now
        with contextlib.suppress(RegistryUnreachable):
            pairs = await registry.entries(keys.ENGINE_REPORTS)
            acts = any(report.acts for pair in pairs if (report := _decoded(pair, EngineReport)))
            if said := self._absence.seen(acts=acts, now=now):
                self._say(said, live)

    def _say(self, line: str, live: Live | None) -> None:
        if live:
            live.console.print(terminal.coloured(line))
        else:
            terminal.say(line)

    def _bounded(self, mine: RolloutView | None, timeout_s: float | None) -> None:
        passed_s = time.monotonic() - self._began
        if timeout_s is not None and passed_s > timeout_s:
            step = mine.steps[mine.step - 1].name if mine else "its beginning"
            raise TimedOut(
                f"after {timeout_s:g} s {self._service} is at {step}; the rollout goes on",
                remedy=f"milkrun rollout watch {self._service}",
            )
        if mine is None and time.monotonic() - self._next_since > BEGIN_S:
            raise TimedOut(
                f"nobody began the rollout within {BEGIN_S:g} s: no engine acts",
                remedy="start one with `milkrun rollouts` (`milkrun up` does), and see `milkrun logs rollouts`",
            )

    def _show(self, shelf: Shelf, seen: RolloutView | None, live: Live | None) -> None:
        if seen and live:
            from rich.console import Group

            live.update(Group(*(terminal.coloured(line) for line in tree_lines(seen))), refresh=True)
            return
        if seen and seen.rollout == self._rollout:
            for entry in shelf.journal[self._told :]:
                terminal.say(
                    f"{entry.at - seen.started:7.1f} s  {entry.said}"
                    + (f"  [{entry.step}]" if entry.step else "")
                )
            self._told = len(shelf.journal)


def _stuck(seen: RolloutView) -> None:
    """Raises Degraded when only a person can go on."""
    if seen.phase is Phase.NEEDS_PERSON:
        raise Degraded(
            f"{seen.service} {seen.version} could not be taken back: {', '.join(seen.waits_for)}",
            remedy=f"milkrun rollout why {seen.service}, then `retry`, or `abort --force`",
        )
    if seen.cause and seen.cause != Cause.ASKED.value:
        raise Degraded(
            f"{seen.service} {seen.version} is held: {seen.paused}",
            remedy=f"milkrun rollout why {seen.service}, then `promote`, `resume` or `abort`",
        )


def _ended(receipt: Receipt) -> Receipt:
    match receipt.outcome:
        case "done":
            return receipt
        case "refused":
            raise Conflict(
                f"the rollout was refused: {receipt.reason}",
                remedy=f"milkrun rollout plan {receipt.service} {receipt.version}",
            )
    terminal.show(receipt_lines(receipt))
    raise Degraded(
        f"{receipt.service} {receipt.version} was taken back: {receipt.reason}",
        remedy=f"milkrun rollout why {receipt.service}",
    )


async def state_of(address: Address, service: ServiceName) -> tuple[Shelf, RolloutView]:
    """The service's newest rollout. Raises NotFound when it never had one."""
    quiet_logs()
    async with Registry(address) as registry:
        shelf, seen = await read(registry, service)
        if seen is None:
            raise await unknown(registry, service)
    return shelf, seen


async def unknown(registry: Registry, service: ServiceName) -> NotFound:
    """The error for a service that never had a rollout; it knows of a misspelt one."""
    known = {pair.key.removeprefix(keys.SERVICES) for pair in await registry.entries(keys.SERVICES)}
    if known and service not in known:
        near = nearest(service, known)
        return NotFound(
            f"there is no service {service}, so it has had no rollout",
            remedy=f"did you mean {near}?" if near else f"known are: {', '.join(sorted(known))}",
        )
    return NotFound(f"{service} has had no rollout yet", remedy=f"milkrun deploy {service} VERSION")


async def ahead_of(address: Address, service: ServiceName, rollout: str) -> list[str]:
    """The rollouts that this one waits for."""
    quiet_logs()
    async with Registry(address) as registry:
        shelf, _ = await read(registry, service)
    return queue.ahead(rollout, shelf.intents.values(), shelf.state)


def behind(service: ServiceName, rollout: str, ahead: list[str]) -> str:
    """That it waits, for whom, and how to end that."""
    return (
        f"{rollout} waits for the end of {', '.join(ahead)};"
        f" `milkrun rollout abort {service} --queued {rollout}` calls it off"
    )
