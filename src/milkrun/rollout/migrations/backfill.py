"""Old rows get what new columns need: by ranges of a key, each in a transaction with the cursor that it moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from milkrun.errors import InputRefused
from milkrun.rollout.migrations.database import Connection, translated
from milkrun.rollout.migrations.lexer import Kind
from milkrun.rollout.migrations.pace import Pressure, pace
from milkrun.rollout.migrations.record import Entry
from milkrun.rollout.migrations.script import Script, Statement
from milkrun.rollout.migrations.session import Session
from milkrun.rollout.migrations.steps import How, Step

# A replica's own figure stays as it was once it has caught up, until it reports again: ten seconds by default.
_LAG = """
SELECT max(CASE WHEN replay_lsn >= pg_current_wal_flush_lsn() THEN 0 ELSE extract(epoch FROM replay_lag) END)::float,
       count(*) FILTER (WHERE state IS NULL)
FROM pg_stat_replication
"""
_DEAD = "SELECT n_dead_tup::float FROM pg_stat_all_tables WHERE relid = to_regclass(%s)"


class Progress(msgspec.Struct, frozen=True):
    """`rows` of about `total` (None: not known) are looked at, `rate` a second, which leaves `left_s` seconds."""

    place: str
    rows: int
    total: int | None
    rate: float
    left_s: float | None
    why_slow: str = ""


Tell = Callable[[Progress], None]
P99 = Callable[[], Awaitable[float | None]]


async def _unknown() -> float | None:
    return None


async def backfill(session: Session, script: Script, tell: Tell, p99_ms: P99 = _unknown) -> None:
    """Each statement has gone through all rows that there were when it began; those that come later are the trigger's.

    Cancelling pauses it; the next call goes on behind the last batch that was committed.
    """
    steps = [
        Step(phase="backfill", number=number, how=How.BRIEFLY, sql=one.text, file=script.file, line=one.line)
        for number, one in enumerate(script.statements, start=1)
    ]
    for step, entry in await session.record.left(steps):
        await _Backfill(session, step, script.statements[step.number - 1], tell, p99_ms).run(entry)


class _Backfill:
    def __init__(self, session: Session, step: Step, statement: Statement, tell: Tell, p99_ms: P99) -> None:
        asked = statement.asked("backfill")
        if len(asked) != 1:
            raise InputRefused(
                "a backfill has one directive with its table and key", file=step.file, line=step.line
            )
        self._session, self._step, self._tell, self._p99 = session, step, tell, p99_ms
        self._table, self._key = asked[0].values["table"], asked[0].values["key"]
        self._sql = parameters(statement)
        self._unseen = 0

    async def run(self, known: Entry | None) -> None:
        entry = known if known is not None else await self._session.patiently(self._step.place, self._begin)
        total = await self._total()
        began, first = time.monotonic(), entry.rows
        size = self._session.settings.batch
        while entry.state != "done":
            now = pace(size, await self._pressure(), self._session.settings)
            if now.size:
                size = now.size
                entry = await self._session.patiently(self._step.place, self._batch(entry, size))
            rate = (entry.rows - first) / max(time.monotonic() - began, 1e-3)
            left = max(0, total - entry.rows) / rate if total is not None and rate else None
            self._tell(Progress(self._step.place, entry.rows, total, rate, left, now.why))
            await asyncio.sleep(now.pause_s)

    async def _begin(self) -> Entry:
        """The range is fixed: from the first key to the last one of now."""
        connection = self._session.connection
        with translated(self._step.place):
            async with connection.transaction():
                await self._session.limited()
                # The key's own order: beside `key::text AS key` it would be that of the text.
                last = f"SELECT k::text FROM (SELECT {self._key} AS k FROM {self._table}"  # noqa: S608
                last += f" ORDER BY {self._key} DESC LIMIT 1) AS last"
                row = await (await connection.execute(last.encode())).fetchone()
                entry = Entry(self._step.digest, "begun" if row else "done", None, row[0] if row else None)
                await self._session.record.put(self._step, entry)
        return entry

    def _batch(self, entry: Entry, size: int) -> Callable[[], Awaitable[Entry]]:
        async def once() -> Entry:
            connection = self._session.connection
            with translated(self._step.place):
                async with connection.transaction():
                    await self._session.limited()
                    row = await (
                        await connection.execute(self._range(entry, size), _bounds(entry))
                    ).fetchone()
                    if not row or not row[2]:
                        done = msgspec.structs.replace(entry, state="done")
                    else:
                        await connection.execute(self._sql, {"from": row[0], "upto": row[1]})
                        done = msgspec.structs.replace(entry, cursor=row[1], rows=entry.rows + row[2])
                    await self._session.record.put(self._step, done)
            return done

        return once

    def _range(self, entry: Entry, size: int) -> bytes:
        """The first and the last key of the next batch, and how many there are."""
        behind = f"{self._key} > %(cursor)s AND " if entry.cursor is not None else ""
        return (
            "SELECT (array_agg(k ORDER BY k))[1]::text, (array_agg(k ORDER BY k DESC))[1]::text, count(*) FROM"  # noqa: S608
            f" (SELECT {self._key} AS k FROM {self._table} WHERE {behind}{self._key} <= %(until)s"
            f" ORDER BY {self._key} LIMIT {size}) AS batch"
        ).encode()

    async def _total(self) -> int | None:
        with translated(self._step.place):
            asked = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)"
            row = await (await self._session.watch.execute(asked, (self._table,))).fetchone()
        return row[0] if row and row[0] > 0 else None

    async def _pressure(self) -> Pressure:
        """What is seen of what has a limit: each look costs a twentieth of a batch."""
        watch, limits = self._session.watch, self._session.settings
        lag = dead = None
        with translated(self._step.place):
            if limits.replica_lag_s_at_most:
                lag, unseen = await replica_lag(watch)
                self._tell_unseen(unseen)
            if limits.dead_rows_at_most:
                row = await (await watch.execute(_DEAD, (self._table,))).fetchone()
                dead = row[0] if row else None
        return Pressure(p99_ms=await self._p99(), replica_lag_s=lag, dead_rows=dead)

    def _tell_unseen(self, replicas: int) -> None:
        if replicas > self._unseen:
            self._session.say(
                f"{self._step.place}: the role may not see how far {replicas} replicas are behind, so it is not"
                " looked at: grant it pg_monitor"
            )
        self._unseen = replicas


async def replica_lag(watch: Connection) -> tuple[float | None, int]:
    """How many seconds the slowest replica is behind, None when nothing is known; and how many may not be seen."""
    row = await (await watch.execute(_LAG)).fetchone()
    return (row[0], row[1]) if row else (None, 0)


def _bounds(entry: Entry) -> dict[str, str | None]:
    return {"cursor": entry.cursor, "until": entry.until}


def parameters(statement: Statement) -> bytes:
    """The statement with :from and :upto as the driver's parameters, and nothing else that it could take for one."""
    text, at = "", 0
    first = statement.tokens[0].start
    for token in statement.tokens:
        if token.kind is Kind.PARAMETER:
            start = token.start - first
            text += statement.text[at:start].replace("%", "%%") + f"%({token.text[1:]})s"
            at = start + len(token.text)
    return (text + statement.text[at:].replace("%", "%%")).encode()
