"""Statements, each carried out once: a crash anywhere is followed by going on behind the last one that is recorded."""

from __future__ import annotations

import time

from milkrun.errors import MilkrunError
from milkrun.rollout.migrations.database import StatementFailed, translated
from milkrun.rollout.migrations.record import Entry
from milkrun.rollout.migrations.session import Session
from milkrun.rollout.migrations.steps import How, Index, Step

_TOO_LONG = "57014"
_NO_SUCH_INDEX = "42704"
_INDEX = """
SELECT c.oid::regclass::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%s) AND c.relname = %s
"""


async def apply(session: Session, steps: list[Step]) -> int:
    """All steps are done, in their order; returns how many this call had to do."""
    left = await session.record.left(steps)
    for step, entry in left:
        session.say(f"{step.place}: {step.phase} {step.number}/{len(steps)}")
        match step.how:
            case How.BRIEFLY | How.SLOWLY:
                await _in_transaction(session, step)
            case How.BUILD:
                await _build(session, step, begun=entry is not None)
            case How.UNBUILD:
                await _unbuild(session, step, begun=entry is not None)
            case How.COMMAND:
                await _command(session, step)
    return len(left)


async def _in_transaction(session: Session, step: Step) -> None:
    slowly = step.how is How.SLOWLY
    began = time.monotonic()

    async def once() -> None:
        nonlocal began
        began = time.monotonic()
        with translated(step.place):
            async with session.connection.transaction():
                # VALIDATE waits beside everybody, and nobody behind it: it may have all the time that there is.
                lock_ms = round(session.settings.lock_budget_s * 1000) or 1
                await session.limited(lock_ms=lock_ms if slowly else None, statement_ms=0 if slowly else None)
                await session.connection.execute(step.sql.encode())
                await session.record.put(step, Entry(step.digest, "done"))

    try:
        await session.patiently(step.place, once)
    except StatementFailed as error:
        # Who cancels it by hand gets the same state.
        took_ms = 1000 * (time.monotonic() - began)
        if error.state == _TOO_LONG and not slowly and took_ms >= session.settings.statement_limit_ms:
            raise MilkrunError(
                f"{step.place}: it had its locks for {session.settings.statement_limit_ms} ms and was not done:"
                " taken back",
                remedy="write it in smaller steps, or raise `statement_limit_ms` in [migration]",
            ) from error
        raise


async def _build(session: Session, step: Step, *, begun: bool) -> None:
    """The index is there and valid. What an earlier try left half built is dropped first."""
    if step.index is None:
        raise MilkrunError(f"{step.place}: the index has no name")
    index = step.index
    found = await _look(session, index)
    if not (begun and found and found[1]):
        await _begin(session, step)

        async def once() -> None:
            await _drop_invalid(session, index)
            await _outside(session, step)

        try:
            await session.patiently(step.place, once)
        except MilkrunError:
            if not session.connection.broken:
                await _drop_invalid(session, index)
            raise
        found = await _look(session, index)
        if not (found and found[1]):
            raise MilkrunError(f"{step.place}: the index {index.name} is not valid")
    await _end(session, step)


async def _unbuild(session: Session, step: Step, *, begun: bool) -> None:
    if not begun:
        await _begin(session, step)
    try:
        await session.patiently(step.place, lambda: _outside(session, step))
    except StatementFailed as error:
        if not (begun and error.state == _NO_SUCH_INDEX):
            raise
    await _end(session, step)


async def _command(session: Session, step: Step) -> None:
    """The program has ended well. One that was begun before is called again: only it knows how far it was."""
    if step.command is None:
        raise MilkrunError(f"{step.place}: the step has no command")
    await _begin(session, step)
    await session.programs.run(step.command, step.phase, session.connection, session.say)
    await _end(session, step)


async def _outside(session: Session, step: Step) -> None:
    await _alone(session, step.sql, step.place)


async def _alone(session: Session, sql: str, place: str) -> None:
    """The statement was run in no transaction. It waits beside everybody, so it may wait for the whole budget."""
    with translated(place):
        await session.connection.execute(
            "SELECT set_config('lock_timeout', %s, false)",
            (f"{round(session.settings.lock_budget_s * 1000) or 1}ms",),
        )
        try:
            await session.connection.execute(sql.encode())
        finally:
            if not session.connection.broken:
                await session.connection.execute("RESET lock_timeout")


async def _look(session: Session, index: Index) -> tuple[str, bool] | None:
    with translated(f"the index {index.name}"):
        row = await (await session.connection.execute(_INDEX, (index.table, index.name))).fetchone()
    return (row[0], row[1]) if row else None


async def _drop_invalid(session: Session, index: Index) -> None:
    found = await _look(session, index)
    if found and not found[1]:
        session.say(f"the index {index.name} was left half built: dropped, to build it again")
        await _alone(session, f"DROP INDEX CONCURRENTLY {found[0]}", f"the index {index.name}")


async def _begin(session: Session, step: Step) -> None:
    with translated(step.place):
        await session.record.put(step, Entry(step.digest, "begun"))


async def _end(session: Session, step: Step) -> None:
    with translated(step.place):
        await session.record.put(step, Entry(step.digest, "done"))
