"""PostgreSQL's disk is really full: the migration stops and says so, and goes on when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from milkrun.rollout.migrations.apply import apply
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import Address, DatabaseGone, StatementFailed
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.steps import steps
from milkrun.rollout.migrations.verify import verify
from milkrun.settings.migration import MigrationSettings

from . import ledger
from .cluster import Cluster, bottles

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.needs("tmpfs")]

MOUNT = 'mount -t tmpfs -o size=48m none "$0" && echo mounted && cat'
ROWS = 20_000
EXPAND = steps(parse(ledger.EXPAND, "expand.sql"), "expand")
BACKFILL = parse(ledger.BACKFILL, "backfill.sql")


class SmallDisk:
    """A file system of 48 MB that only the server sees at `folder`, and this process at `seen`."""

    def __init__(self, folder: Path, holder: int) -> None:
        self.folder = folder
        self.within = ("nsenter", "-m", "-t", str(holder))
        self.seen = Path(f"/proc/{holder}/root{folder}")

    def fill(self, but: int = 0) -> None:
        """There is no room for more than so many bytes."""
        room = os.statvfs(self.seen)
        with (self.seen / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_bsize - but)

    def make_room(self) -> None:
        (self.seen / "ballast").unlink()


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    folder = Path(tempfile.mkdtemp(prefix="mr-disk-"))
    holder = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", MOUNT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"mounted\n"
    made = SmallDisk(folder, holder.pid)
    shutil.chown(made.seen, "postgres")
    yield made
    holder.communicate(timeout=30)  # `cat` ends by that, and the file system goes with it
    folder.rmdir()


@pytest.fixture
def roomy(disk) -> Iterator[Cluster]:
    """A cluster that could keep something on the small disk. Its log's files are of 1 MB."""
    made = Cluster(within=disk.within, initdb=("--wal-segsize=1",))
    yield made
    made.stop()


def session(url, say=lambda _: None):
    return opened(Address(url), "ledger", "2", MigrationSettings(), say)


@pytest.fixture
def url(disk, roomy) -> str:
    """A database whose tables are on the small disk."""
    with psycopg.connect(roomy.url("postgres"), autocommit=True) as connection:
        connection.execute(f"create tablespace small location '{disk.folder}'".encode())
    url = roomy.database("tablespace small")
    bottles(url, ROWS)
    return url


async def test_a_backfill_stops_where_the_disk_is_full_and_goes_on_there(disk, url):
    seen = []
    async with session(url) as here:
        await apply(here, EXPAND)
        disk.fill(but=128 * 1024)
        with pytest.raises(
            StatementFailed, match=r"backfill.sql:3: could not extend file .*No space left"
        ) as caught:
            await backfill(here, BACKFILL, lambda now: seen.append(now.rows))
        assert (caught.value.state, caught.value.remedy[:9]) == ("53100", "make room")
        assert await reads(url) == ROWS
        stopped = seen[-1] if seen else 0
        disk.make_room()
        await backfill(here, BACKFILL, lambda now: seen.append(now.rows))
        assert seen[-1] == ROWS
        assert stopped + 1000 in seen  # the batch that failed is the next one
        assert await verify(here, parse(ledger.VERIFY, "verify.sql")) == []


async def reads(url):
    """Who only reads has no part in it."""
    async with await psycopg.AsyncConnection.connect(url) as reader:
        return (await (await reader.execute("select count(name) from bottles")).fetchone())[0]


async def test_an_index_for_which_there_is_no_room_is_built_when_there_is(disk, url):
    plan = steps(parse(b"create index concurrently wide on bottles (repeat(name, 9))", "e.sql"), "expand")
    async with session(url) as here:
        disk.fill(but=64 * 1024)
        with pytest.raises(StatementFailed, match="No space left") as caught:
            await apply(here, plan)
        assert (caught.value.state, caught.value.remedy[:9]) == ("53100", "make room")
        disk.make_room()
        assert await apply(here, plan) == 1
    assert ledger.one(url, "select indisvalid from pg_index where indexrelid = 'wide'::regclass") is True
    assert ledger.one(url, "select count(*) from pg_index where not indisvalid") == 0


async def test_where_the_servers_own_log_has_no_room_it_goes_on_when_there_is(disk, roomy):
    """PostgreSQL refuses the statement, or ends all sessions by a PANIC when it is at the commit already."""
    url = roomy.database()
    bottles(url, ROWS)
    roomy.kill()
    log = roomy.home / "data" / "pg_wal"
    shutil.copytree(log, disk.seen / "wal", copy_function=shutil.copy)
    for path in (disk.seen / "wal", *(disk.seen / "wal").rglob("*")):
        shutil.chown(path, "postgres")
    shutil.rmtree(log)
    log.symlink_to(disk.folder / "wal")
    roomy.start()
    async with session(url) as here:
        await apply(here, EXPAND)
        disk.fill()
        with pytest.raises(
            (StatementFailed, DatabaseGone), match=r"No space left|connection .* was lost"
        ) as caught:
            await backfill(here, BACKFILL, lambda _: None)
    assert caught.value.remedy.endswith("then retry: it goes on behind what is recorded")
    while not roomy.gone:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url).close()
            break
        await asyncio.sleep(0.05)
    disk.make_room()
    if roomy.gone:
        roomy.start()
    seen = []
    async with session(url) as here:
        await backfill(here, BACKFILL, lambda now: seen.append(now.rows))
        assert await verify(here, parse(ledger.VERIFY, "verify.sql")) == []
    assert seen[-1] == ROWS
