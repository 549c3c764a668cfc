"""Each statement of verify.sql counts what is wrong: all have to say 0, and nothing else will do."""

from __future__ import annotations

import msgspec

from milkrun.errors import InputRefused
from milkrun.rollout.migrations.database import translated
from milkrun.rollout.migrations.script import Script, Statement
from milkrun.rollout.migrations.session import Session


class Wrong(msgspec.Struct, frozen=True):
    """A statement that did not say 0."""

    place: str
    number: int


async def verify(session: Session, script: Script) -> list[Wrong]:
    """What is wrong, nothing when all is well. Raises InputRefused for a statement that does not give one whole number.

    Without any statement there is nothing that could be wrong: whether that will do is the caller's to say.
    """
    found = []
    for statement in script.statements:
        place = f"{script.file}:{statement.line}"
        number = await session.patiently(place, lambda each=statement, at=place: _count(session, each, at))  # type: ignore[misc]
        if number is None:
            raise InputRefused("it does not give one whole number", file=script.file, line=statement.line)
        if number:
            found.append(Wrong(place, number))
    return found


async def _count(session: Session, statement: Statement, place: str) -> int | None:
    with translated(place):
        async with session.connection.transaction():
            await session.connection.execute("SET TRANSACTION READ ONLY")
            await session.limited(statement_ms=0)
            rows = await (await session.connection.execute(statement.text.encode())).fetchall()
    number = rows[0][0] if len(rows) == 1 and len(rows[0]) == 1 else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None
