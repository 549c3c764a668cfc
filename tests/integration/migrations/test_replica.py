"""A real replica that stops replaying: the backfill waits for it, and goes on when it has caught up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill, replica_lag
from milkrun.rollout.migrations.database import Address
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.rollout.migrations.verify import verify
from milkrun.settings.migration import MigrationSettings

from . import ledger
from .cluster import Cluster

pytestmark = pytest.mark.needs("postgres")

EXPAND = steps(parse(ledger.EXPAND, "expand.sql"), "expand")
BACKFILL = parse(ledger.BACKFILL, "backfill.sql")
LIMIT_S = 0.2


class Replica:
    """Reads what the primary writes, but for when it is told not to."""

    def __init__(self, primary: Cluster) -> None:
        self.cluster = Cluster(of=primary)
        self._primary = psycopg.connect(primary.url("postgres"), autocommit=True)
        self._own = psycopg.connect(self.cluster.url("postgres"), autocommit=True)

    async def paused(self) -> None:
        """It replays no more, and is behind by more than twice the limit, as the primary sees it."""
        self._own.execute("select pg_wal_replay_pause()")
        while self._one(self._own, "select pg_get_wal_replay_pause_state()") != "paused":
            await asyncio.sleep(0.01)
        behind = f"select coalesce(max(replay_lag) > '{3 * LIMIT_S} s', false) from pg_stat_replication"
        while not self._one(self._primary, behind):
            # A replica answers when something comes.
            self._primary.execute("select pg_logical_emit_message(true, 'tick', '')")
            await asyncio.sleep(0.02)

    async def resumed(self) -> None:
        """It has replayed all that the primary has written."""
        self._own.execute("select pg_wal_replay_resume()")
        done = "select bool_and(replay_lsn >= pg_current_wal_flush_lsn()) from pg_stat_replication"
        while not self._one(self._primary, done):
            await asyncio.sleep(0.01)

    def _one(self, connection, query):
        return connection.execute(query).fetchone()[0]

    def stop(self) -> None:
        self._own.close()
        self._primary.close()
        self.cluster.stop()


@pytest.fixture
def replica(cluster, url) -> Iterator[Replica]:
    made = Replica(cluster)
    yield made
    made.stop()


def session(address, say=lambda _: None):
    settings = MigrationSettings(batch=100, replica_lag_s_at_most=LIMIT_S)
    return opened(address, "ledger", "2", settings, say)


async def test_the_backfill_waits_for_a_replica_that_stopped_replaying(cluster, url, address, replica):
    told = asyncio.Queue()
    seen = []

    async def p99():
        """Stops the replica when the backfill is under way, before the next look at it."""
        if len(seen) == 10:
            await replica.paused()

    def tell(progress):
        seen.append(progress)
        told.put_nowait(progress)

    async def fills():
        async with session(address) as here:
            await apply(here, EXPAND)
            await backfill(here, BACKFILL, tell, p99)
            assert await verify(here, parse(ledger.VERIFY, "verify.sql")) == []

    async with asyncio.TaskGroup() as tasks:
        filling = tasks.create_task(fills())
        waits = []
        while len(waits) < 3:
            progress = await told.get()
            waits += [progress] if progress.why_slow.startswith("replicas behind in s") else []
        assert len({each.rows for each in waits}) == 1
        assert waits[0].rows < 2000
        assert not filling.done()
        await replica.resumed()
    assert seen[-1].rows == 5000
    await replica.resumed()
    elsewhere = url.replace(str(cluster.home), str(replica.cluster.home))
    assert ledger.one(elsewhere, "select count(*) from bottles where goat is distinct from name") == 0


async def test_a_replica_that_has_caught_up_is_not_behind_whatever_it_said_last(address, replica):
    async with session(address) as here:
        await replica.paused()
        behind, _ = await replica_lag(here.watch)
        assert behind > 2 * LIMIT_S
        await replica.resumed()
        # Something may have been written meanwhile, by PostgreSQL itself. What is said of an idle replica is NULL.
        while await replica_lag(here.watch) != (0, 0):
            await asyncio.sleep(0.01)


async def test_a_role_that_may_not_see_replicas_is_told_so_once(url, replica):
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "create role milker login",
            "alter table bottles owner to milker",
            "grant create on schema public to milker",
            f"grant create on database {connection.info.dbname} to milker",
        ):
            connection.execute(statement.encode())
    said = []
    async with session(Address(url.replace("postgres@", "milker@")), said.append) as here:
        await apply(here, EXPAND)
        await backfill(here, BACKFILL, lambda _: None)
    (text,) = [text for text in said if "replicas" in text]
    assert text == (
        "backfill.sql:3: the role may not see how far 1 replicas are behind, so it is not looked at:"
        " grant it pg_monitor"
    )
