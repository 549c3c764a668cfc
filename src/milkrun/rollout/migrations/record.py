"""What of a migration is done, in the database itself: written in the transaction of the step that it tells of.

`unsuited` are the versions that cannot work with the schema any more, `since` the contract of another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from milkrun.errors import Conflict
from milkrun.model import ServiceName, VersionName
from milkrun.rollout.migrations.database import Connection, translated
from milkrun.rollout.migrations.steps import Step
from milkrun.settings.migration import Phase

_TABLE = (
    "CREATE SCHEMA IF NOT EXISTS milkrun",
    """CREATE TABLE IF NOT EXISTS milkrun.migrations (
        service text NOT NULL, version text NOT NULL, phase text NOT NULL, step int NOT NULL,
        digest text NOT NULL, state text NOT NULL CHECK (state IN ('begun', 'done')),
        cursor text, until text, rows bigint NOT NULL DEFAULT 0, rollout text NOT NULL DEFAULT '',
        at timestamptz NOT NULL DEFAULT now(), by text NOT NULL DEFAULT current_setting('application_name'),
        PRIMARY KEY (service, version, phase, step))""",
    """CREATE TABLE IF NOT EXISTS milkrun.unsuited (
        service text NOT NULL, version text NOT NULL, since text NOT NULL, PRIMARY KEY (service, version))""",
)


class Entry(msgspec.Struct, frozen=True):
    """How far a step is. A backfill's `cursor` is the last key done, `until` the last one there was at its start."""

    digest: str
    state: Literal["begun", "done"]
    cursor: str | None = None
    until: str | None = None
    rows: int = 0


class Record:
    """The entries of one service's version. Whoever writes holds the service's lock, and does it for a `rollout`."""

    def __init__(
        self, connection: Connection, service: ServiceName, version: VersionName, rollout: str = ""
    ) -> None:
        self._connection, self._of, self._rollout = connection, (service, version), rollout

    async def prepare(self) -> None:
        """The table is there."""
        # IF NOT EXISTS asks for CREATE on the database even when the schema is there already.
        if not await self._there():
            with translated("the record of migrations"):
                for statement in _TABLE:
                    await self._connection.execute(statement)

    async def _there(self) -> bool:
        with translated("the record of migrations"):
            row = await (await self._connection.execute("SELECT to_regclass('milkrun.unsuited')")).fetchone()
        return bool(row and row[0] is not None)

    async def entries(self) -> dict[tuple[str, int], Entry]:
        """All of them, by phase and number."""
        with translated("the record of migrations"):
            rows = await self._connection.execute(
                "SELECT phase, step, digest, state, cursor, until, rows FROM milkrun.migrations"
                " WHERE service = %s AND version = %s",
                self._of,
            )
            return {(row[0], row[1]): Entry(*row[2:]) for row in await rows.fetchall()}

    async def begun(self, phase: Phase) -> bool:
        """Whether anything of the phase was begun."""
        return any(of == phase for of, _ in await self.entries())

    async def another(self) -> str:
        """Another rollout that did a part of it; empty when there is none."""
        asked = "SELECT rollout FROM milkrun.migrations WHERE service = %s AND version = %s AND rollout <> %s LIMIT 1"
        with translated("the record of migrations"):
            row = await (await self._connection.execute(asked, (*self._of, self._rollout))).fetchone()
        return row[0] if row else ""

    async def left(self, steps: list[Step]) -> list[tuple[Step, Entry | None]]:
        """The steps that are not done, with what is known of them. Raises Conflict when done ones are others now."""
        entries = await self.entries()
        digests = [step.digest for step in steps]
        for (phase, number), entry in entries.items():
            if steps and phase == steps[0].phase and digests[number - 1 : number] != [entry.digest]:
                raise Conflict(
                    f"{steps[0].file} is not what it was when its statement {number} was {entry.state}",
                    remedy="put it back as it was, or undo the migration first",
                )
        found = [(step, entries.get((step.phase, step.number))) for step in steps]
        return [(step, entry) for step, entry in found if not entry or entry.state != "done"]

    async def put(self, step: Step, entry: Entry) -> None:
        """The entry is written, in the transaction that is open (or by itself)."""
        await self._connection.execute(
            "INSERT INTO milkrun.migrations (service, version, phase, step, digest, state, cursor, until, rows,"
            " rollout) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (service, version, phase, step) DO UPDATE SET digest = EXCLUDED.digest, at = now(),"
            " state = EXCLUDED.state, cursor = EXCLUDED.cursor, until = EXCLUDED.until, rows = EXCLUDED.rows,"
            " by = EXCLUDED.by",
            (
                *self._of,
                step.phase,
                step.number,
                entry.digest,
                entry.state,
                entry.cursor,
                entry.until,
                entry.rows,
                self._rollout,
            ),
        )

    async def unsuit(self, versions: Iterable[VersionName]) -> None:
        """From now on these versions are known not to suit the schema; the record's own does."""
        service, since = self._of
        with translated("the record of migrations"):
            async with self._connection.transaction():
                await self._connection.execute(
                    "DELETE FROM milkrun.unsuited WHERE service = %s AND version = %s", self._of
                )
                for version in versions:
                    await self._connection.execute(
                        "INSERT INTO milkrun.unsuited (service, version, since) VALUES (%s, %s, %s)"
                        " ON CONFLICT DO NOTHING",
                        (service, version, since),
                    )

    async def unsuited(self) -> VersionName | None:
        """The version whose contract has taken away what this one needs; None when this one suits the schema."""
        if not await self._there():
            return None
        with translated("the record of migrations"):
            asked = "SELECT since FROM milkrun.unsuited WHERE service = %s AND version = %s"
            row = await (await self._connection.execute(asked, self._of)).fetchone()
        return VersionName(row[0]) if row else None

    async def forget(self) -> None:
        """The version was never migrated to."""
        with translated("the record of migrations"):
            await self._connection.execute(
                "DELETE FROM milkrun.migrations WHERE service = %s AND version = %s", self._of
            )
