"""The milk ledger of examples/dairy-ledger as a farm of a test's own, on a real PostgreSQL, with clients that write."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path

import psycopg
from farm import Farm

from milkrun.cli.rollout_wait import read
from milkrun.consul import Registry
from milkrun.errors import MilkrunError
from milkrun.model import ServiceName
from milkrun.rollout.receipt import Receipt
from milkrun.rollout.store import Shelf
from milkrun.rollout.view import RolloutView

EXAMPLE = Path(__file__).parents[1] / "examples" / "dairy-ledger"
LEDGER = ServiceName("ledger")
SERVICE = """command = ["{python}", "apps/ledger.py", "{version}"]

[secrets]
DATABASE = "secrets/database"

[health]
interval_s = 0.2

[migration]
url_file = "secrets/database"
batch = 50
lock_budget_s = 60.0

[rollout]
steps = ["smoke", "weight 50%", "pause"]
bake_s = 0.0

[rollout.smoke]
path = "/bottles"
"""
HALFWAY = """
CREATE OR REPLACE FUNCTION halfway() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END $$;
DROP TRIGGER IF EXISTS halfway ON bottles;
CREATE TRIGGER halfway BEFORE UPDATE ON bottles FOR EACH ROW WHEN (OLD.id = {row}) EXECUTE FUNCTION halfway();
"""
RATE, WRITERS = 80.0, 4


def _clients():
    """The example's own clients."""
    found = importlib.util.spec_from_file_location("ledger_clients", EXAMPLE / "demo" / "clients.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


clients = _clients()


class LedgerFarm(Farm):
    """It has the ledger and nothing else. `database` is where its bottles are."""

    def __init__(self, path: Path, database: str, *, settings: str = SERVICE, replicas: int = 1) -> None:
        super().__init__(path)
        self.database = database
        self.git("rm", "-r", "--quiet", "services", "deploy", "apps")
        text = (path / "milkrun.toml").read_text()
        text = text[: text.index("# A load balancer before the farmers")].replace("goat", "ledger")
        (path / "milkrun.toml").write_text(text)
        for part in ("apps", "migrations"):
            shutil.copytree(EXAMPLE / part, path / part)
        for folder, file, data in (
            ("services", "ledger.toml", settings),
            ("deploy", "ledger.json", json.dumps({"version=1.0": {"weight": 100, "replicas": replicas}})),
            ("secrets", "database", database),
        ):
            (path / folder).mkdir(exist_ok=True)
            (path / folder / file).write_text(data)
        (path / "secrets" / "database").chmod(0o600)
        (path / ".gitignore").write_text(".milkrun/\nsecrets/\n")
        self.git("add", "--all")
        self.commit("The ledger")
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute((EXAMPLE / "schema.sql").read_text().encode())

    @property
    def bottles(self) -> str:
        return f"http://127.0.0.1:{self.goats}/bottles"

    def fill(self, rows: int) -> None:
        """So many bottles are there, as version 1.0 writes them."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO bottles (ticket, label, amount)"
                " SELECT gen_random_uuid(), 'anna/heidi', 1.5 FROM generate_series(1, %s)",
                (rows,),
            )
            connection.execute("ANALYZE bottles")

    @contextmanager
    def halfway(self, row: int) -> Iterator[psycopg.Connection]:
        """Whoever changes that row waits for a session called nightly-batch, until this ends or it is gone."""
        with psycopg.connect(self.database, autocommit=True, application_name="nightly-batch") as batch:
            batch.execute(HALFWAY.format(row=row).encode())
            batch.execute("SELECT pg_advisory_lock(42)")
            yield batch

    def columns(self) -> set[str]:
        with psycopg.connect(self.database) as connection:
            return {column.name for column in connection.execute("SELECT * FROM bottles LIMIT 0").description}

    def litres(self, column: str) -> tuple[int, Decimal]:
        """How many bottles there are, and what is in them."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(f"SELECT count(*), sum({column}) FROM bottles".encode()).fetchone()

    def says(self, *arguments: str, status: int = 0) -> str:
        """The command ends with this status; returned is what it says to people."""
        done = self.milkrun(*arguments)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr + done.stdout

    def begun(self, version: str, *options: str) -> str:
        """The rollout's id."""
        return self.shows("deploy", "ledger", version, "--no-wait", *options)["rollout"]

    def shows(self, *arguments: str) -> dict:
        """What the command that ends well prints as one JSON object."""
        done = self.milkrun(*arguments, "--json")
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    async def stands(self) -> tuple[Shelf, RolloutView | None]:
        async with Registry(self.address) as registry:
            return await read(registry, LEDGER)

    async def at(self, fact: Callable[[RolloutView], bool], within_s: float = 60.0) -> RolloutView:
        """The newest rollout as it stands once the fact is true."""
        seen = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        _, seen = await self.stands()
                    except MilkrunError:
                        seen = None
                    if seen and fact(seen):
                        return seen
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it never came true: {seen}") from None

    async def ended(self, rollout: str, within_s: float = 90.0) -> Receipt:
        """Its receipt, once it has one."""

        found: list[Receipt] = []
        async with asyncio.timeout(within_s):
            while not found:
                try:
                    shelf, _ = await self.stands()
                    found = [receipt for receipt in shelf.history if receipt.rollout == rollout]
                except MilkrunError:
                    pass
                await asyncio.sleep(0.05)
        return found[0]


def held_up(step: str) -> Callable[[RolloutView], bool]:
    """Whether the rollout is at such a step and says that nightly-batch is in its way."""
    return lambda seen: at_step(step)(seen) and any("nightly-batch" in wait for wait in seen.waits_for)


def at_step(name: str) -> Callable[[RolloutView], bool]:
    """Whether the rollout is at a step whose name begins so."""
    return lambda seen: any(step.state == "now" and step.name.startswith(name) for step in seen.steps)


@asynccontextmanager
async def customers(farm: LedgerFarm) -> AsyncIterator[None]:
    """They bring and correct bottles meanwhile. Nobody is refused, and what they were told is what is there."""
    async with clients.writing(farm.bottles, writers=WRITERS, rate=RATE) as them:
        yield
    assert them.failures == {}
    assert them.written > 10
    column = "litres" if "litres" in farm.columns() else "amount"
    with psycopg.connect(farm.database) as connection:
        rows = connection.execute(f"SELECT ticket, {column} FROM bottles".encode()).fetchall()
    there = dict(rows)
    assert {ticket: there.get(ticket) for ticket in them.sold} == {
        ticket: bottle.litres for ticket, bottle in them.sold.items()
    }
