"""The one door to a service's database: connections that say who they are, and errors that never say where it is."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from milkrun.errors import InputRefused, MilkrunError, NotFound, PartMissing
from milkrun.settings.migration import MigrationSettings

if TYPE_CHECKING:
    import psycopg

Connection: TypeAlias = "psycopg.AsyncConnection[tuple[Any, ...]]"
CONNECT_LIMIT_S = 10
# What a role or a database has for limits is meant for the service's own statements; ours get theirs one by one.
_LIMITS = (
    "SET client_connection_check_interval = '1s'; SET statement_timeout = 0; SET idle_session_timeout = 0"
)
_REASONS = {
    "password authentication failed": "it refuses the password",
    "no password supplied": "it asks for a password",
    "does not exist": "the role or the database does not exist",
    "pg_hba.conf": "it lets nobody in from here",
    "too many clients": "it has too many clients",
    "starting up": "it is starting up",
    "shutting down": "it is shutting down",
    "timeout expired": "nobody answers in time",
}
"""Of PostgreSQL's words for a failed connection, which have host, role and database in them, what may be shown."""

_REMEDIES = {
    "53100": "make room on the database's disk, then retry: it goes on behind what is recorded",
    "53200": "let the database have more memory, then retry: it goes on behind what is recorded",
    "42501": "grant the migrating role what it needs, then retry",
    "25006": "give the address of the primary: this one takes no writes",
}


class Address:
    """Where a database is and how one gets in. It shows itself to nobody."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __repr__(self) -> str:
        return "Address(...)"

    def reveal(self) -> str:
        """The URL, for the driver only."""
        return self._url


def address(settings: MigrationSettings, folder: Path) -> Address:
    """The address that the settings lead to; a relative path is meant from `folder`."""
    if settings.url_env:
        url = os.environ.get(settings.url_env, "")
        where = f"the variable {settings.url_env}"
    elif settings.url_file:
        where = f"the file {settings.url_file}"
        file = folder / settings.url_file
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
            url = file.read_text().strip()
        except (OSError, ValueError):
            raise NotFound(
                f"cannot read {where} of `migration.url_file`", remedy="put the URL in it, mode 0600"
            ) from None
        if mode & 0o077:
            raise InputRefused(
                f"{where} has the database's URL, and others may read it (mode {mode:04o})",
                remedy=f"chmod 600 {settings.url_file}",
            )
    else:
        raise NotFound("the service names no database", remedy="set `url_file` in [migration]")
    if not url:
        raise NotFound(f"{where}, which should have the database's URL, is empty")
    return Address(url)


@asynccontextmanager
async def connected(to: Address, name: str) -> AsyncIterator[Connection]:
    """A connection in autocommit, known as `name` in pg_stat_activity; it ends soon after its client does."""
    psycopg = _driver()
    failed = ""
    connection = None
    try:
        connection = await psycopg.AsyncConnection.connect(
            to.reveal(), autocommit=True, application_name=name, prepare_threshold=None,
            connect_timeout=CONNECT_LIMIT_S, keepalives_idle=30, keepalives_interval=10, keepalives_count=3,
        )  # fmt: skip
    except psycopg.ProgrammingError:
        raise InputRefused("what the database's URL should be in is no URL") from None
    except psycopg.Error as error:
        failed = next((shown for words, shown in _REASONS.items() if words in str(error)), "nobody answers")
    if connection is None:
        raise DatabaseGone(
            f"no connection to the service's database: {failed}", remedy="see that it runs, and its URL"
        )
    async with connection:
        with translated():
            await connection.execute(_LIMITS)
        yield connection


@contextmanager
def translated(place: str = "") -> Iterator[None]:
    """What goes wrong in PostgreSQL is raised as ours, with its code, and with `place` before it."""
    psycopg = _driver()
    before = f"{place}: " if place else ""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None or error.sqlstate.startswith(("57P", "08")):
            raise DatabaseGone(
                f"{before}the connection to the database was lost",
                remedy="see that PostgreSQL runs, then retry: it goes on behind what is recorded",
            ) from None
        said = error.diag.message_primary or "no reason given"
        raise StatementFailed(
            f"{before}{said} ({error.sqlstate})",
            state=error.sqlstate,
            remedy=_REMEDIES.get(error.sqlstate, ""),
        ) from None


class DatabaseGone(MilkrunError):
    """No connection, or it was lost: what was under way is done whole or not at all, and the record says which."""

    code = "database-gone"


class StatementFailed(MilkrunError):
    """PostgreSQL refused a statement. `state` is its SQLSTATE."""

    code = "statement-failed"

    def __init__(self, message: str, *, state: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.state = state


def _driver() -> Any:
    try:
        import psycopg  # noqa: PLC0415 - an extra, which only a service with a database needs
    except ImportError as error:
        raise PartMissing("migrations need psycopg", remedy="pip install 'milkrun[postgres]'") from error
    return psycopg
