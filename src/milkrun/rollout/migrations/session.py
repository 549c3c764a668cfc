"""A session that migrates one service's database: alone, patient with who holds locks, with a record of all done."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from milkrun.errors import MilkrunError, TimedOut
from milkrun.model import ServiceName, VersionName
from milkrun.rollout.migrations import lock
from milkrun.rollout.migrations.command import Programs
from milkrun.rollout.migrations.database import Address, Connection, StatementFailed, connected, translated
from milkrun.rollout.migrations.record import Record
from milkrun.settings.migration import MigrationSettings

_T = TypeVar("_T")
Say = Callable[[str], None]

LOCK_WAIT_S = 10.0
# Lock not available, deadlock detected, serialization failure: the same statement may pass the next time.
_AGAIN = ("55P03", "40P01", "40001")
_LOOKS_BRIEFLY = 3
"""A statement that steps aside has done so before it is seen waiting more often, twice in each lock_timeout_ms."""
_BLOCKERS = """
SELECT coalesce(nullif(application_name, ''), backend_type, 'a session without a name'), pid, coalesce(state, 'active'),
       extract(epoch FROM now() - coalesce(xact_start, query_start, backend_start))::int
FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(%s))
"""


class Session:
    """`connection` changes the database and holds the service's lock; `watch` looks on meanwhile."""

    def __init__(
        self,
        connection: Connection,
        watch: Connection,
        record: Record,
        *,
        programs: Programs,
        settings: MigrationSettings,
        say: Say,
    ) -> None:
        self.connection, self.watch, self.record, self.programs = connection, watch, record, programs
        self.settings, self.say = settings, say

    async def limited(self, *, lock_ms: int | None = None, statement_ms: int | None = None) -> None:
        """In the open transaction a statement waits and takes no longer than the settings (or the caller) say."""
        lock_ms = self.settings.lock_timeout_ms if lock_ms is None else lock_ms
        statement_ms = self.settings.statement_limit_ms if statement_ms is None else statement_ms
        await self.connection.execute(
            "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
            (f"{lock_ms}ms", f"{statement_ms}ms"),
        )

    async def patiently(self, place: str, work: Callable[[], Awaitable[_T]]) -> _T:
        """What `work` gives, tried again while locks are held or deadlocks broken; TimedOut after the budget.

        `work` is a whole transaction, or can be repeated. Nobody queues behind it for longer than lock_timeout_ms.
        """
        until = time.monotonic() + self.settings.lock_budget_s
        tries = 0
        while True:
            tries += 1
            try:
                result, blockers = await self._watched(place, work)
                if not isinstance(result, MilkrunError):
                    return result
                raise result
            except StatementFailed as error:
                if error.state not in _AGAIN:
                    raise
                why = f"held by {blockers}" if blockers else error.message
            if time.monotonic() >= until:
                raise TimedOut(
                    f"{place}: no lock in {self.settings.lock_budget_s:g} s and {tries} tries: {why}",
                    remedy="end that session or wait for it, then retry",
                )
            self.say(f"{place}: waits for a lock: {why}")
            most = self.settings.lock_timeout_ms / 1000 * min(2 ** min(tries, 5), 20)
            await asyncio.sleep(min(random.uniform(most / 2, most), max(0.0, until - time.monotonic())))

    async def _watched(self, place: str, work: Callable[[], Awaitable[_T]]) -> tuple[_T | MilkrunError, str]:
        """What `work` gave or raised, and who was seen in its way."""
        ended = asyncio.Event()
        result: _T | MilkrunError
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._blockers(place, ended))
            try:
                result = await work()
            except MilkrunError as error:
                result = error
            finally:
                ended.set()
        return result, watcher.result()

    async def _blockers(self, place: str, ended: asyncio.Event) -> str:
        """Who was in the way until it ended; of those whom it waits for long, beside everybody, it says so at once."""
        seen, looks = "", 0
        told: set[int] = set()
        pid = self.connection.info.backend_pid
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), self.settings.lock_timeout_ms / 2000)
            if ended.is_set():
                break
            # Who cannot be seen is not named; the work itself goes on or fails by itself.
            with contextlib.suppress(MilkrunError), translated():
                rows = await (await self.watch.execute(_BLOCKERS, (pid,))).fetchall()
                if rows:
                    seen = ", ".join(
                        f"{name} (pid {pid}, {state}, {age} s)" for name, pid, state, age in rows
                    )
                    looks += 1
                    if looks > _LOOKS_BRIEFLY and (new := {row[1] for row in rows} - told):
                        told |= new
                        self.say(f"{place}: waits for a lock: held by {seen}")
        return seen


@asynccontextmanager
async def opened(
    to: Address,
    service: ServiceName,
    version: VersionName,
    settings: MigrationSettings,
    say: Say,
    *,
    rollout: str = "",
    folder: Path = Path(),
) -> AsyncIterator[Session]:
    """A session under the service's lock, with the record ready. Raises Conflict while somebody else has it.

    Programs are run in `folder`.
    """
    name = f"milkrun/{service}/{version}"[:63]
    async with (
        connected(to, name) as connection,
        connected(to, f"{name[:57]}/watch") as watch,
        lock.held(connection, service, wait_s=LOCK_WAIT_S),
    ):
        record = Record(connection, service, version, rollout)
        await record.prepare()
        programs = Programs(folder, to, service, version, rollout)
        yield Session(connection, watch, record, programs=programs, settings=settings, say=say)
