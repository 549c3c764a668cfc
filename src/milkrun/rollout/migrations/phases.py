"""The phases of a migration, as a rollout calls them: each can be called again, and goes on where it was."""

from __future__ import annotations

from milkrun.errors import Conflict
from milkrun.model import ServiceName, VersionName
from milkrun.rollout.migrations import gates
from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.database import translated
from milkrun.rollout.migrations.files import Scripts
from milkrun.rollout.migrations.session import Session
from milkrun.rollout.migrations.steps import steps
from milkrun.rollout.migrations.verify import verify

_SESSIONS = """
SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''
ORDER BY application_name
"""


async def expand(session: Session, scripts: Scripts) -> None:
    """The schema is one that both versions can work with."""
    if await session.record.begun("undo"):
        raise Conflict("the migration is being undone", remedy="let the undo end first")
    await apply(session, steps(scripts.of("expand"), "expand"))


async def contract(
    session: Session,
    scripts: Scripts,
    *,
    service: ServiceName,
    new: VersionName,
    old: dict[VersionName, int],
    baked_in_s: float,
) -> None:
    """What only the old versions used is gone. `old` are they, with how many instances each has in the catalog.

    Raises Conflict with all reasons against it before anything is touched.
    """
    await _refuse_unfinished(session, scripts)
    # Once it has begun, what verify.sql compares may be gone: then it can only go on.
    begun = await session.record.begun("contract")
    wrong = [] if begun else await verify(session, scripts.of("verify"))
    facts = gates.Facts(
        sessions=await sessions(session),
        instances=old,
        baked_in_s=baked_in_s,
        wrong=[f"{each.place}: {each.number}" for each in wrong],
    )
    if reasons := gates.closed(service, new, list(old), facts):
        raise Conflict(
            "the contract has to wait: " + "; ".join(reasons), remedy="try again when that is over"
        )
    await apply(session, steps(scripts.of("contract"), "contract", ending=scripts.syncs))


async def undo(session: Session, scripts: Scripts) -> None:
    """The schema is as it was before the expansion, and so is the record. Refused once the contract has begun."""
    if await session.record.begun("contract"):
        raise Conflict(
            "the contract has begun: what the old version used is no longer there",
            remedy="go forward with a new version",
        )
    await apply(session, steps(scripts.of("undo"), "undo", ending=scripts.syncs))
    await session.record.forget()


async def sessions(session: Session) -> list[str]:
    """What those who are in the database call themselves."""
    with translated():
        rows = await (await session.watch.execute(_SESSIONS)).fetchall()
    return [row[0] for row in rows]


async def _refuse_unfinished(session: Session, scripts: Scripts) -> None:
    entries = await session.record.entries()
    expected = [("expand", step.number) for step in steps(scripts.of("expand"), "expand")]
    expected += [("backfill", number + 1) for number in range(len(scripts.of("backfill").statements))]
    for phase, number in expected:
        entry = entries.get((phase, number))
        if entry is None or entry.state != "done":
            raise Conflict(
                f"statement {number} of {phase}.sql is not done", remedy="let the rollout end first"
            )
