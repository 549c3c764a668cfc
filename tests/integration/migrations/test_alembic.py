"""Revisions of Alembic as phases: what it writes without a database is a script as any other."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import psycopg
import pytest

from milkrun.errors import InputRefused, PartMissing, TimedOut
from milkrun.rollout.git import Git
from milkrun.rollout.migrations import alembic, phases
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import DatabaseGone
from milkrun.rollout.migrations.files import judged
from milkrun.rollout.migrations.rides import Rides
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.steps import Migrate
from milkrun.settings.migration import MigrationSettings

from . import ledger
from .committed import HOME, committed, migration
from .test_phases import columns

pytestmark = pytest.mark.needs("postgres")

INI = "[alembic]\nscript_location = %(here)s/alembic\nprepend_sys_path = .\n"
ENV = """
import os
from alembic import context
from farm import GOATS

assert GOATS == 7
assert "MILKRUN_TEST_SECRET" not in os.environ
context.configure(url=os.environ["MILKRUN_DATABASE_URL"], literal_binds=True, dialect_opts={"paramstyle": "named"})
with context.begin_transaction():
    context.run_migrations()
"""
HEAD = "from alembic import op\nimport sqlalchemy as sa\nrevision, down_revision = {!r}, {!r}\n"
A1 = """
def upgrade():
    op.create_table("farms", sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False))
def downgrade():
    op.drop_table("farms", if_exists=True)
"""
B2 = """
def upgrade():
    op.add_column("bottles", sa.Column("goat", sa.Text))
    op.execute("-- milkrun: sync table=bottles old=name new=goat\\nSELECT 1")
    op.alter_column("bottles", "name", nullable=True)
    with op.get_context().autocommit_block():
        op.create_index("bottles_goat", "bottles", ["goat"], postgresql_concurrently=True)
    op.execute("COMMENT ON COLUMN bottles.goat IS '100% goat'")
def downgrade():
    with op.get_context().autocommit_block():
        op.drop_index("bottles_goat", "bottles", postgresql_concurrently=True, if_exists=True)
    op.drop_column("bottles", "goat", if_exists=True)
"""
C3 = """
def upgrade():
    op.drop_column("bottles", "name")
def downgrade():
    raise NotImplementedError("the names are gone")
"""
ASKS = """
def upgrade():
    rows = op.get_bind().execute(sa.text("select id from bottles")).fetchall()
def downgrade():
    pass
"""
BY_HAND = """
def upgrade():
    op.execute("update bottles set litres = 1")
    op.create_index("bottles_litres", "bottles", ["litres"])
    op.execute("update alembic_version set version_num = 'z'")
def downgrade():
    pass
"""
REVISIONS = {"a1": (None, A1), "b2": ("a1", B2), "c3": ("b2", C3), "d4": ("b2", ASKS), "e5": ("b2", BY_HAND)}
ALEMBIC = {
    "db/alembic.ini": INI,
    "db/farm.py": "GOATS = 7\n",
    "db/alembic/__init__.py": "",
    "db/alembic/env.py": ENV,
    **{
        f"db/alembic/versions/{name}.py": HEAD.format(name, before) + text
        for name, (before, text) in REVISIONS.items()
    },
}
EXPAND = {"expand": "a1:b2", "contract": "b2:c3", "undo": "b2:a1"}


def files(**revisions):
    said = 'alembic = "db/alembic.ini"\n' + "".join(
        f'[{phase}]\nrevisions = "{each}"\n' for phase, each in revisions.items()
    )
    return {**ALEMBIC, f"{HOME}/phases.toml": said}


def session(address, say=lambda _: None):
    return opened(address, "ledger", "2", MigrationSettings(), say)


async def test_a_rename_by_revisions_under_clients_of_both_versions(tmp_path, url, address, monkeypatch):
    monkeypatch.setenv("MILKRUN_TEST_SECRET", "hush")
    rows = {f"{HOME}/backfill.sql": ledger.BACKFILL, f"{HOME}/verify.sql": ledger.VERIFY}
    plan = await migration(tmp_path, {**files(expand="base:b2", contract="b2:c3", undo="b2:a1"), **rows})
    assert plan.phases == ["expand", "backfill", "verify", "contract", "undo"]
    assert await judged(plan) == []
    async with session(address) as here, ledger.clients(url, ("name", "1")) as old:
        await ledger.answered(old, 10)
        assert await phases.expand(here, plan) == len(plan.steps("expand")) > 0
        assert await phases.expand(here, plan) == 0
        async with ledger.clients(url, ("goat", "2")) as new:
            await ledger.answered(new, 10)
            await backfill(here, plan.of("backfill"), lambda _: None)
            assert await phases.checked(here, plan) == []
            await ledger.answered(old, 10)
    assert (old.errors, new.errors) == ([], [])
    assert (
        ledger.one(url, "select indisvalid from pg_index where indexrelid = 'bottles_goat'::regclass") is True
    )
    assert ledger.one(url, "select version_num from alembic_version") == "b2"
    with psycopg.connect(url, application_name="ledger/2/x"):
        async with session(address) as here:
            await phases.contract(here, plan, service="ledger", new="2", old={"1": 0})
            assert await columns(here) == {"id", "litres", "goat"}
    assert ledger.one(url, "select version_num from alembic_version") == "c3"


async def test_an_expansion_that_stopped_halfway_goes_on_or_is_undone(tmp_path, url, address):
    plan = await migration(tmp_path, files(**EXPAND))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table alembic_version (version_num varchar(32) primary key)")
        connection.execute("insert into alembic_version values ('a1')")
    build = next(step for step in plan.steps("expand") if step.index)

    def dies(text):
        if f"expand {build.number}/" in text:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'milkrun/ledger/2'"
                )

    for end in (phases.undo, phases.expand, phases.undo):
        with pytest.raises(DatabaseGone):
            async with session(address, dies) as here:
                await phases.expand(here, plan)
        async with session(address) as here:
            await end(here, plan)
        if end is phases.expand:
            assert ledger.one(url, "select version_num from alembic_version") == "b2"
            async with session(address) as here:
                await phases.undo(here, plan)
        assert ledger.one(url, "select version_num from alembic_version") == "a1"
        async with session(address) as here:
            assert await columns(here) == {"id", "name", "litres"}
            assert await here.record.entries() == {}


async def test_the_rules_look_at_what_it_writes(tmp_path):
    plan = await migration(tmp_path, files(expand="b2:e5"))
    found = [(each.rule, each.file, each.line) for each in await judged(plan)]
    what = "alembic upgrade b2:e5 --sql"
    assert found == [("data", what, 5), ("index", what, 7), ("data", what, 9)]


async def test_a_revision_that_asks_the_database_is_refused_with_its_line(tmp_path):
    with pytest.raises(
        InputRefused, match=r"^db/alembic/versions/d4.py:6: alembic upgrade b2:d4 --sql: "
    ) as caught:
        await migration(tmp_path, files(expand="b2:d4"))
    assert "fetchall" in caught.value.message
    assert "backfill.sql" in caught.value.remedy


@pytest.mark.parametrize(
    ("revisions", "reason"),
    [
        ({"expand": "a1:zz"}, "alembic upgrade a1:zz --sql: Can't locate revision identified by 'zz'"),
        ({"undo": "a1:b2"}, "alembic downgrade a1:b2 --sql: "),
        ({"expand": "b2:b2"}, "alembic upgrade b2:b2 --sql: there is nothing between these two revisions"),
    ],
)
async def test_revisions_that_are_not_there_are_refused(tmp_path, revisions, reason):
    with pytest.raises(InputRefused) as caught:
        await migration(tmp_path, files(**revisions))
    assert reason in caught.value.message
    assert "milkrun-alembic" not in caught.value.message


async def test_without_its_configuration_or_itself_that_is_said(tmp_path, monkeypatch):
    where = [tmp_path / name for name in "ab"]
    for each in where:
        each.mkdir()
    with pytest.raises(InputRefused, match=r"db/alembic.ini: the commit has no such file"):
        await migration(where[0], {f"{HOME}/phases.toml": files(**EXPAND)[f"{HOME}/phases.toml"]})
    monkeypatch.setattr(alembic.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PartMissing, match="revisions need Alembic") as caught:
        await migration(where[1], files(**EXPAND))
    assert caught.value.remedy == "pip install 'milkrun[postgres]'"


async def test_the_commit_counts_and_it_is_written_once(tmp_path, url, monkeypatch):
    made = committed(tmp_path, files(**EXPAND))
    (tmp_path / "db/alembic/versions/b2.py").write_text("this is no revision")
    calls = []
    written = alembic.written

    async def counted(*asked):
        calls.append(asked)
        return await written(*asked)

    monkeypatch.setattr(alembic, "written", counted)
    git = await Git.open(tmp_path, "main")
    try:
        scripts = [await git.scripts(made, "ledger", "2") for _ in range(2)]
        assert scripts[0] is scripts[1]
        assert len(calls) == 1
        # Another engine, whose Alembic writes something else.
        monkeypatch.setenv("URL", url)
        plan = SimpleNamespace(
            id="r1", service="ledger", migrations={"2": SimpleNamespace(
                commit=made, digest="another", settings=MigrationSettings(url_env="URL")
            )},
        )  # fmt: skip
        said = await Rides(None, git, tmp_path).run(plan, Migrate("expand", "2"), print, list)
    finally:
        await git.close()
    assert (said.good, said.said.partition(":")[0]) == (
        False,
        "its statements are no longer those of the plan",
    )
    assert ledger.one(url, "select to_regclass('milkrun.migrations')") is None


async def test_a_configuration_at_the_top_has_all_of_the_repository(tmp_path):
    top = {path.removeprefix("db/"): text for path, text in ALEMBIC.items()}
    plan = await migration(tmp_path, {**top, f"{HOME}/phases.toml": '[expand]\nrevisions = "a1:b2"\n'})
    assert [step.index.name for step in plan.steps("expand") if step.index] == ["bottles_goat"]


async def test_a_plan_shows_each_statement_and_that_a_program_is_not_looked_into(tmp_path):
    both = files(**EXPAND)[f"{HOME}/phases.toml"] + '[verify]\ncommand = ["./count", "{phase}"]\n'
    settings = 'command = ["x"]\n[migration]\nurl_env = "LEDGER_URL"\n'
    committed(tmp_path, {**ALEMBIC, f"{HOME}/phases.toml": both, "services/ledger.toml": settings})
    (tmp_path / "milkrun.toml").write_text('name = "farm"\n')
    said = subprocess.run(
        [sys.executable, "-m", "milkrun", "--env", str(tmp_path), "migrate", "plan", "ledger", "2"],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert "alembic upgrade a1:b2 --sql:5" in said
    assert "CREATE INDEX CONCURRENTLY bottles_goat ON bottles (goat)" in said
    (line,) = [line for line in said.splitlines() if "./count" in line]
    assert "a program, which no rule looks into" in line


async def test_a_folder_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(alembic, "FOLDER_FILES_AT_MOST", 3)
    with pytest.raises(InputRefused, match=r"db/alembic.ini: its folder has more than 3 files"):
        await migration(tmp_path, files(**EXPAND))


async def test_an_env_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(alembic, "LIMIT_S", 1.0)
    stays = {"db/alembic/env.py": "import signal\nsignal.pause()\n"}
    with pytest.raises(TimedOut, match="alembic upgrade a1:b2 --sql took more than 1 s and was stopped"):
        await migration(tmp_path, {**files(**EXPAND), **stays})
