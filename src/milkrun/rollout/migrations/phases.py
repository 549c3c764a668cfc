"""The phases of a migration that change the schema: each can be called again, and goes on where it was."""

from __future__ import annotations

from milkrun.errors import Conflict
from milkrun.model import ServiceName, VersionName
from milkrun.rollout.migrations import gates
from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.command import CommandFailed
from milkrun.rollout.migrations.files import Scripts
from milkrun.rollout.migrations.session import Session
from milkrun.rollout.migrations.standing import sessions
from milkrun.rollout.migrations.verify import verify
from milkrun.settings.migration import Phase


class GateClosed(Conflict):
    """The contract may not come yet. What is in its way may go."""

    code = "gate-closed"


async def expand(session: Session, scripts: Scripts) -> int:
    """The schema is one that both versions can work with; returns how many statements that took."""
    if await session.record.begun("undo"):
        raise Conflict("the migration is being undone", remedy="let the undo end first")
    return await apply(session, scripts.steps("expand"))


async def contract(
    session: Session,
    scripts: Scripts,
    *,
    service: ServiceName,
    new: VersionName,
    old: dict[VersionName, int],
) -> int:
    """What only the old versions used is gone. `old` are they, with how many instances each has in the catalog.

    Returns how many statements that took. Raises GateClosed with all reasons against it before anything is touched.
    """
    await _refuse_unfinished(session, scripts)
    # Once it has begun, what verify.sql compares may be gone: then it can only go on.
    begun = await session.record.begun("contract")
    wrong = [] if begun else await checked(session, scripts)
    facts = gates.Facts(sessions=await sessions(session.watch), instances=old, wrong=wrong)
    if reasons := gates.closed(service, new, list(old), facts):
        raise GateClosed(
            "the contract has to wait: " + "; ".join(reasons), remedy="try again when that is over"
        )
    await session.record.unsuit(old)
    return await apply(session, scripts.steps("contract"))


async def undo(session: Session, scripts: Scripts) -> int:
    """The schema is as it was before the expansion, and so is the record; returns how many statements that took.

    Raises Conflict once the contract has begun.
    """
    if await session.record.begun("contract"):
        raise Conflict(
            "the contract has begun: what the old version used is no longer there",
            remedy="go forward with a new version",
        )
    if not await session.record.entries():
        return 0  # it was never begun
    done = await apply(session, scripts.steps("undo"))
    await session.record.forget()
    return done


async def fill(session: Session, scripts: Scripts) -> int:
    """The command of the backfill has ended well, now or before; returns how many commands that took."""
    return await apply(session, scripts.steps("backfill"))


async def checked(session: Session, scripts: Scripts) -> list[str]:
    """What verify finds wrong, each in a sentence; empty when all is well."""
    if command := scripts.commands.get("verify"):
        try:
            await session.programs.run(command, "verify", session.connection, session.say)
        except CommandFailed as error:
            return [error.message]
        return []
    wrong = await verify(session, scripts.of("verify"))
    return [f"{each.place} counts {each.number:,} wrong" for each in wrong]


async def _refuse_unfinished(session: Session, scripts: Scripts) -> None:
    entries = await session.record.entries()
    expected: list[tuple[Phase, int]] = [("expand", step.number) for step in scripts.steps("expand")]
    fills = 1 if "backfill" in scripts.commands else len(scripts.of("backfill").statements)
    expected += [("backfill", number + 1) for number in range(fills)]
    for phase, number in expected:
        entry = entries.get((phase, number))
        if entry is None or entry.state != "done":
            which = (
                f"the command of {phase}"
                if phase in scripts.commands
                else f"statement {number} of {phase}.sql"
            )
            raise Conflict(f"{which} is not done", remedy="let the rollout end first")
