"""How far a service's migrations are, as its database tells."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from milkrun.model import ServiceName, VersionName
from milkrun.rollout.migrations import gates
from milkrun.rollout.migrations.database import Address, Connection, connected, translated

_PHASES = """
SELECT version, phase, count(*) FILTER (WHERE state = 'done'), count(*) FILTER (WHERE state = 'begun'),
       sum(rows)::bigint, extract(epoch FROM max(at))::float
FROM milkrun.migrations WHERE service = %s GROUP BY version, phase ORDER BY min(at)
"""
_UNSUITED = "SELECT version, since FROM milkrun.unsuited WHERE service = %s ORDER BY version"
_SESSIONS = """
SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''
ORDER BY application_name
"""


class PhaseStanding(msgspec.Struct, frozen=True, kw_only=True):
    """`done` statements of a phase of a version are done, `begun` not yet; a backfill has looked at `rows`.

    `at` is when that last changed, in seconds since 1970. A phase of which nothing was begun is left out.
    """

    version: VersionName
    phase: str
    done: int
    begun: int
    rows: int
    at: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the database tells of a service. `unsuited` are the versions that its schema no longer suits, with the
    version whose contract did that; `sessions` the names of those who are in it.
    """

    phases: list[PhaseStanding]
    unsuited: dict[VersionName, VersionName]
    sessions: list[str]

    def begun(self, version: VersionName, phase: str) -> bool:
        """Whether anything of the phase was begun."""
        return any((each.version, each.phase) == (version, phase) for each in self.phases)

    def closed(
        self,
        service: ServiceName,
        new: VersionName,
        outdated: Iterable[VersionName],
        instances: dict[VersionName, int],
    ) -> list[str]:
        """Why the contract may not come yet, but for what verify.sql will find."""
        facts = gates.Facts(sessions=self.sessions, instances=instances)
        return gates.closed(service, new, list(outdated), facts)


async def standing(to: Address, service: ServiceName) -> Standing:
    """Read now, without a lock. Raises DatabaseGone when it cannot be."""
    async with connected(to, f"milkrun/{service}/status"[:63]) as connection:
        with translated("the record of migrations"):
            row = await (await connection.execute("SELECT to_regclass('milkrun.unsuited')")).fetchone()
            there = bool(row and row[0] is not None)
            phases = await (await connection.execute(_PHASES, (service,))).fetchall() if there else []
            unsuited = await (await connection.execute(_UNSUITED, (service,))).fetchall() if there else []
        return Standing(
            phases=[
                PhaseStanding(version=row[0], phase=row[1], done=row[2], begun=row[3], rows=row[4], at=row[5])
                for row in phases
            ],
            unsuited={row[0]: row[1] for row in unsuited},
            sessions=await sessions(connection),
        )


async def sessions(connection: Connection) -> list[str]:
    """What those who are in the database call themselves."""
    with translated():
        rows = await (await connection.execute(_SESSIONS)).fetchall()
    return [row[0] for row in rows]
