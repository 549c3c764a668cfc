"""Waits in the registry until a commit is served: what every command that changes weights ends with."""

from __future__ import annotations

import asyncio
import time

from milkrun.consul import Registry, keys
from milkrun.consul.client import decode
from milkrun.consul.watch import Watch, watch_prefix
from milkrun.consul.wire import Pair
from milkrun.errors import Degraded, InputRefused, RegistryUnreachable, TimedOut
from milkrun.model import CommitId, RouterReport, ServiceName, SyncReport
from milkrun.overview.served import Outcome, Standing, published, standing

SILENCE_S = 3.0
"""A registry that has not answered once in this time is not waited for."""

TICK_S = 0.25


async def until_served(
    registry: Registry,
    service: ServiceName,
    *,
    file: str,
    commit: CommitId,
    generation: int,
    timeout_s: float,
) -> list[RouterReport]:
    """The reports of the live routers, all of which serve this generation or a later one.

    Raises InputRefused when gitsync refused the file, Degraded when a router holds, TimedOut when someone
    is late, RegistryUnreachable when the registry is away.
    """
    board = _Board(registry, service, file=file, generation=generation)
    async with asyncio.TaskGroup() as tasks:
        watchers = [tasks.create_task(board.follow_routers()), tasks.create_task(board.follow_sync())]
        result = await board.final(timeout_s)
        for watcher in watchers:
            watcher.cancel()
    match result.outcome:
        case Outcome.SERVED:
            return board.routers
        case Outcome.REFUSED:
            raise InputRefused(
                f"{result.reason} (commit {commit[:7]} is made, but its weights are not published)",
                remedy=f"mend {file} and commit",
            )
        case Outcome.HELD:
            raise Degraded(
                f"commit {commit[:7]} is made but not served: {result.reason}",
                remedy=f"milkrun explain {service}",
            )
        case Outcome.WAITING:
            raise board.late(result, commit, timeout_s)


class _Board:
    """What the registry last said, and since when."""

    def __init__(self, registry: Registry, service: ServiceName, *, file: str, generation: int) -> None:
        self.routers: list[RouterReport] = []
        self._service = service
        self._file = file
        self._generation = generation
        self._sync: SyncReport | None = None
        self._routers_watch = watch_prefix(registry, f"{keys.ROUTER_REPORTS}{service}/")
        self._sync_watch = Watch(registry, f"/v1/kv/{keys.SYNC_REPORT}")
        self._answered = 0
        self._published_at: float | None = None
        self._changed = asyncio.Event()
        self._start = time.monotonic()

    async def follow_routers(self) -> None:
        async for answer in self._routers_watch:
            pairs = decode(answer.body, list[Pair]) if answer.status == 200 else []
            self.routers = [decode(pair.data, RouterReport) for pair in pairs]
            self._note(1)

    async def follow_sync(self) -> None:
        async for answer in self._sync_watch:
            pairs = decode(answer.body, list[Pair]) if answer.status == 200 else []
            self._sync = decode(pairs[0].data, SyncReport) if pairs else None
            self._note(2)

    def _note(self, watch: int) -> None:
        self._answered |= watch
        if self._published_at is None and published(self._sync, self._generation):
            self._published_at = time.monotonic()
        self._changed.set()

    async def final(self, timeout_s: float) -> Standing:
        """The standing once it is final, or as it is after `timeout_s`, or when nobody answers at all."""
        while True:
            now = time.monotonic()
            settled_s = now - self._published_at if self._published_at is not None else 0.0
            result = standing(
                self.routers,
                self._sync,
                file=self._file,
                generation=self._generation,
                settled_s=settled_s,
            )
            passed_s = now - self._start
            silent = self._answered == 0 and passed_s > SILENCE_S
            if result.outcome is not Outcome.WAITING or passed_s > timeout_s or silent:
                return result
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), TICK_S)
            except TimeoutError:
                continue

    def late(
        self, result: Standing, commit: CommitId, timeout_s: float
    ) -> TimedOut | RegistryUnreachable | Degraded:
        """The error for a wait that ended without the fact."""
        trouble = self._routers_watch.trouble or self._sync_watch.trouble
        if trouble or not self._answered:
            return RegistryUnreachable(
                f"{trouble or 'the registry does not answer'}; commit {commit[:7]} is made and will be served"
                " when the registry is back",
                remedy="start it with `milkrun up`; `milkrun weights "
                f"{self._service}` then shows what each router serves",
            )
        held = [why for report in self.routers for why in report.held]
        if held:
            return Degraded(
                f"commit {commit[:7]} is made but not served: {'; '.join(held)}",
                remedy=f"milkrun explain {self._service}",
            )
        of_git = any(who.startswith("gitsync") for who in result.waits_for)
        look = "milkrun logs gitsync" if of_git else f"milkrun status {self._service}"
        return TimedOut(
            f"after {timeout_s:g} s commit {commit[:7]} still waits for {', '.join(result.waits_for)}",
            remedy=f"{look} shows why; the commit stays and is served later",
        )
