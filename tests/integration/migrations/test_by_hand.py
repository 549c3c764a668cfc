"""What changes of a schema do to clients when they are made by hand: these tests see the harm that the tool avoids.

The early contract is in test_phases.py.
"""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from . import ledger

pytestmark = pytest.mark.needs("postgres")

OLD = ("name", "1")


async def by_hand(url, change):
    """The clients of the old version, after the change was made under them."""
    async with ledger.clients(url, OLD) as crowd:
        await ledger.answered(crowd, 60)
        with psycopg.connect(url) as connection:
            connection.execute(change)
        await ledger.answered(crowd, 60)
    return crowd


async def test_a_rename_breaks_the_old_version(url):
    crowd = await by_hand(url, "alter table bottles rename name to goat")
    assert "42703" in crowd.errors


async def test_a_column_of_another_type_breaks_statements_that_were_prepared(url):
    crowd = await by_hand(url, "alter table bottles alter litres type bigint")
    assert "0A000" in crowd.errors


async def test_a_new_column_breaks_who_does_not_name_those_it_reads(url):
    """Not once: until the statement is prepared anew."""
    with psycopg.connect(url, autocommit=True) as client, psycopg.connect(url, autocommit=True) as named:

        def asks(connection, columns):
            connection.execute(f"select {columns} from bottles where id = %s".encode(), (1,), prepare=True)

        asks(client, "*")
        asks(named, "id, name")
        with psycopg.connect(url) as connection:
            connection.execute("alter table bottles add goat text")
        for _ in range(3):
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan"):
                asks(client, "*")
            asks(named, "id, name")


async def test_nobody_reads_while_a_column_gets_another_type(url):
    """The table is written anew under a lock that stands against all others."""
    with psycopg.connect(url) as hand, psycopg.connect(url, autocommit=True) as other:
        hand.execute("alter table bottles alter litres type bigint")
        before = ledger.one(url, "select pg_relation_filenode('bottles')")
        assert hand.execute("select pg_relation_filenode('bottles')").fetchone() != (before,)
        _refused(other)


async def test_everybody_queues_behind_a_column_that_waits_for_a_long_transaction(url):
    with psycopg.connect(url) as batch, psycopg.connect(url, autocommit=True) as other:
        batch.execute("select count(*) from bottles")
        async with (
            await psycopg.AsyncConnection.connect(url, autocommit=True) as hand,
            asyncio.TaskGroup() as tasks,
        ):
            waiting = tasks.create_task(hand.execute("alter table bottles add goat text"))
            while not other.execute("select 1 from pg_locks where not granted").fetchone():
                await asyncio.sleep(0.01)
            _refused(other)
            batch.commit()
            await waiting


def _refused(client):
    client.execute("set lock_timeout = '300ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        client.execute("select id from bottles limit 1")
