"""Phases that a program carries out: under the lock, in their time, known afterwards, and silent about the address."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from milkrun.errors import Conflict, InputRefused
from milkrun.rollout.drawing import drawn
from milkrun.rollout.git import Git
from milkrun.rollout.migrations import command as commands
from milkrun.rollout.migrations import phases, rides
from milkrun.rollout.migrations.command import CommandFailed
from milkrun.rollout.migrations.database import Address, DatabaseGone
from milkrun.rollout.migrations.files import judged
from milkrun.rollout.migrations.phases import GateClosed
from milkrun.rollout.migrations.rides import Rides
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.steps import Migrate
from milkrun.settings.migration import PHASES, MigrationSettings

from . import ledger
from .committed import HOME, committed, git, migration
from .test_phases import columns

pytestmark = pytest.mark.needs("postgres")

MIGRATE = """
import os, sys
import psycopg

DOES = {
    "expand": "alter table bottles add goat text",
    "backfill": "update bottles set goat = name",
    "verify": "select count(*) from bottles where goat is distinct from name",
    "contract": "alter table bottles drop name",
    "undo": "alter table bottles drop goat",
}
with psycopg.connect(os.environ["MILKRUN_DATABASE_URL"]) as connection:
    found = connection.execute(DOES[sys.argv[1]])
    wrong = found.fetchone()[0] if sys.argv[1] == "verify" else 0
print(sys.argv[1:], os.environ["MILKRUN_VERSION"], os.environ["PGAPPNAME"])
sys.exit(f"{wrong} rows are wrong" if wrong else 0)
"""
FILE = f"{HOME}/phases.toml"


def program(text, *more, **settings):
    """A phase that runs this Python."""
    said = {"command": ["{python}", "-c", text, *more], "timeout_s": 60, **settings}
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())


async def scripts(folder, files=None, **by_phase):
    said = "".join(f"[{phase}]\n{text}" for phase, text in by_phase.items())
    others = {f"{HOME}/{phase}.sql": text for phase, text in (files or {}).items()}
    return await migration(folder, {FILE: said, **others})


def session(address, folder, said=None):
    said = [] if said is None else said
    return opened(address, "ledger", "2", MigrationSettings(), said.append, rollout="r1", folder=folder)


def gone(pid):
    """It ends within the test's time, or has ended."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    found = select.select([held], [], [], 30)[0]
    os.close(held)
    return bool(found)


async def test_each_phase_by_a_program_is_done_once(tmp_path, url, address):
    plan = await scripts(
        tmp_path, **{phase: program(MIGRATE, "{phase}", "{service}", "{x}") for phase in PHASES}
    )
    assert plan.phases == [*PHASES]
    assert await judged(plan) == []
    said = []
    async with session(address, tmp_path, said) as here:
        with pytest.raises(Conflict, match=r"the command of expand is not done"):
            await phases.contract(here, plan, service="ledger", new="2", old={})
        assert [await phases.expand(here, plan) for _ in range(2)] == [1, 0]
        place = f"{FILE}:1"
        assert said == [
            f"{place}: expand 1/1",
            f"{place}: ['expand', 'ledger', '{{x}}'] 2 milkrun/ledger/2/command",
        ]
        (wrong,) = await phases.checked(here, plan)
        assert wrong.endswith("ended with 1: 5000 rows are wrong")
        with pytest.raises(Conflict, match=r"the command of backfill is not done"):
            await phases.contract(here, plan, service="ledger", new="2", old={})
        assert [await phases.fill(here, plan) for _ in range(2)] == [1, 0]
        assert await phases.checked(here, plan) == []
        with psycopg.connect(url, autocommit=True, application_name="ledger/2/x") as new:
            new.execute("update bottles set goat = 'other' where id = 1")
            with pytest.raises(GateClosed, match=r"verify finds something wrong: .*: 1 rows are wrong"):
                await phases.contract(here, plan, service="ledger", new="2", old={})
            new.execute("update bottles set goat = name")
            done = [
                await phases.contract(here, plan, service="ledger", new="2", old={"1": 0}) for _ in range(2)
            ]
        assert done == [1, 0]
        assert await columns(here) == {"id", "litres", "goat"}


async def test_an_undo_by_a_program_comes_behind_the_triggers(tmp_path, url, address):
    expand = b"alter table bottles add goat text;\n-- milkrun: sync table=bottles old=name new=goat\n"
    plan = await scripts(tmp_path, {"expand": expand}, undo=program(MIGRATE, "{phase}"))
    async with session(address, tmp_path) as here:
        await phases.expand(here, plan)
        assert await phases.undo(here, plan) == len(plan.steps("undo")) > 1
        assert await columns(here) == {"id", "name", "litres"}
        assert await here.record.entries() == {}
    assert ledger.one(url, "select count(*) from pg_trigger where not tgisinternal") == 0


async def test_the_address_is_in_nothing_that_a_program_says(tmp_path, url, monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of the registry")
    secret = url.replace("postgres@", "postgres:hu%2Fsh@")
    text = """
import os, sys
url = os.environ["MILKRUN_DATABASE_URL"]
assert not [word for word in sys.argv if "hu" in word]
assert "CONSUL_HTTP_TOKEN" not in os.environ
print("connects to", url)
for piece in ("hu%2Fsh", "hu/sh"):
    sys.stdout.write(f"with {piece[:2]}"); sys.stdout.flush()
    sys.stdout.write(f"{piece[2:]} now\\n"); sys.stdout.flush()
sys.exit(f"cannot reach {url} as boss with hu/sh")
"""
    plan = await scripts(tmp_path, expand=program(text))
    said = []
    async with session(Address(secret), tmp_path, said) as here:
        with pytest.raises(CommandFailed) as caught:
            await phases.expand(here, plan)
    assert caught.value.message.endswith("ended with 1: cannot reach *** as boss with ***")
    told = f"{said} {caught.value!r} {caught.value.__cause__!r}"
    assert not [word for word in (secret, "hu/sh", "hu%2Fsh") if word in told]
    assert said[1].endswith("***") or "with ***" in said[1]


async def test_in_a_rollout_its_last_line_is_shown(tmp_path, url, monkeypatch):
    settings = MigrationSettings(url_env="LEDGER_URL", lock_budget_s=0)
    monkeypatch.setenv("LEDGER_URL", url)
    await scripts(
        tmp_path,
        backfill=program("for each in (20, 40): print(each, '%', flush=True)"),
        verify=program("import pathlib, sys; sys.exit('no' if pathlib.Path('wrong').exists() else 0)"),
    )
    own, said = await Git.open(tmp_path, "main"), []
    try:
        made = git(tmp_path, "rev-parse", "HEAD")
        known = SimpleNamespace(
            commit=made, digest=(await own.scripts(made, "ledger", "2")).digest, settings=settings
        )
        plan = SimpleNamespace(id="r1", service="ledger", stable="1", migrations={"2": known})
        results = []
        for phase in ("backfill", "backfill", "verify", "verify"):
            result = await Rides(None, own, tmp_path).run(plan, Migrate(phase, "2"), said.append, list)
            results.append((result.good, result.said.rpartition(" ended with ")[2]))
            if phase == "verify":
                (tmp_path / "wrong").touch()
    finally:
        await own.close()
    assert results == [
        (True, "its command has ended well"),
        (True, "it was done before"),
        (True, "its command found nothing wrong"),
        (False, "1: no"),
    ]
    assert f"{FILE}:1: 40 %" in said
    assert said[-1] == f"{FILE}:4: no"


async def test_a_version_that_has_programs_alone_is_migrated_and_one_without_is_not(tmp_path):
    committed(
        tmp_path,
        {
            FILE: f"[expand]\n{program('print()')}",
            "services/ledger.toml": 'command = ["x"]\n[migration]\nurl_env = "LEDGER_URL"\n',
            "deploy/ledger.json": '{"version=1": {"weight": 1, "replicas": 1}}',
        },
    )
    own = await Git.open(tmp_path, "main")
    try:
        brings, _ = await drawn(own, "r1", "ledger", "2")
        brings_nothing, _ = await drawn(own, "r1", "ledger", "3")
    finally:
        await own.close()
    assert brings.migrations["2"].phases == ["expand"]
    assert Migrate("expand", "2") in brings.steps
    assert brings_nothing.migrations == {}


def test_a_database_that_goes_away_after_long_work_is_waited_for_anew(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(rides.time, "monotonic", lambda: now[0])
    patience = rides._Patience(600, print)
    now[0] = 5000.0
    assert patience.over
    patience.worked(30)
    assert patience.over
    patience.worked(5000)
    assert not patience.over
    now[0] += 601
    assert patience.over


async def test_what_fails_is_called_again(tmp_path, address):
    text = (
        "import os, pathlib, sys\n"
        "seen = pathlib.Path('seen'); seen.write_text('again' if seen.exists() else 'once')\n"
        "sys.exit(0 if seen.read_text() == 'again' else 3)"
    )
    plan = await scripts(tmp_path, expand=program(text))
    async with session(address, tmp_path) as here:
        with pytest.raises(CommandFailed, match=r"phases.toml:1: \S+ ended with 3$"):
            await phases.expand(here, plan)
        (entry,) = (await here.record.entries()).values()
        assert entry.state == "begun"
        assert await phases.expand(here, plan) == 1


async def test_a_program_that_is_not_there_is_named(tmp_path, address):
    plan = await scripts(tmp_path, expand='command = ["./nowhere"]\n')
    async with session(address, tmp_path) as here:
        with pytest.raises(CommandFailed, match=r"ended with 127: ./nowhere cannot be started: No such file"):
            await phases.expand(here, plan)


STAYS = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(os.getpid(), child.pid, flush=True)
{}
"""


async def test_a_program_that_takes_too_long_is_stopped_with_all_that_it_started(tmp_path, address):
    plan = await scripts(tmp_path, expand=program(STAYS.format("signal.pause()"), timeout_s=4))
    said = []
    async with session(address, tmp_path, said) as here:
        with pytest.raises(CommandFailed, match="took more than 4 s and was stopped"):
            await phases.expand(here, plan)
    pids = [int(pid) for pid in said[-1].rpartition(": ")[2].split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


async def test_what_a_program_leaves_behind_does_not_keep_its_phase(tmp_path, address):
    plan = await scripts(tmp_path, expand=program(STAYS.format("")))
    said = []
    async with session(address, tmp_path, said) as here:
        assert await phases.expand(here, plan) == 1
    assert gone(int(said[-1].rpartition(" ")[2]))


async def test_without_the_lock_the_program_is_stopped(tmp_path, url, address, monkeypatch):
    monkeypatch.setattr(commands, "LOOK_S", 0.05)
    plan = await scripts(tmp_path, expand=program(STAYS.format("signal.pause()")))
    said = []

    def say(text):
        said.append(text)
        if text.rpartition(" ")[2].isdigit():
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'milkrun/ledger/2'"
                )

    with pytest.raises(DatabaseGone):
        async with opened(address, "ledger", "2", MigrationSettings(), say, folder=tmp_path) as here:
            await phases.expand(here, plan)
    assert all(gone(int(pid)) for pid in said[-1].rpartition(": ")[2].split())


async def test_a_pause_stops_the_program(tmp_path, address):
    plan = await scripts(
        tmp_path, backfill=program(STAYS.format("signal.pause()")), verify=program("print()")
    )
    told = asyncio.Queue()

    async def fills():
        async with opened(
            address, "ledger", "2", MigrationSettings(), told.put_nowait, folder=tmp_path
        ) as here:
            await phases.fill(here, plan)

    async with asyncio.TaskGroup() as tasks:
        filling = tasks.create_task(fills())
        await told.get()
        pids = (await told.get()).rpartition(": ")[2].split()
        filling.cancel()
    assert all(gone(int(pid)) for pid in pids)


KILLED = """
import asyncio, sys
from pathlib import Path
from milkrun.repository.reading import Repository
from milkrun.rollout.migrations import phases
from milkrun.rollout.migrations.database import Address
from milkrun.rollout.migrations.files import read
from milkrun.rollout.migrations.session import opened
from milkrun.settings.migration import MigrationSettings

async def main(url, folder, commit):
    plan = await read(await Repository.open(Path(folder)), commit, "ledger", "2")
    say = lambda text: print(text, flush=True)
    async with opened(Address(url), "ledger", "2", MigrationSettings(), say, folder=Path(folder)) as here:
        await phases.expand(here, plan)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_engine_takes_its_program_along_and_the_next_one_calls_it_again(
    tmp_path, url, address
):
    text = STAYS.format("signal.pause() if not os.path.exists('again') else child.kill()")
    plan = await scripts(tmp_path, expand=program(text))
    head = git(tmp_path, "rev-parse", "HEAD")
    engine = subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(tmp_path), head], stdout=subprocess.PIPE, text=True
    )
    engine.stdout.readline()
    pids = engine.stdout.readline().rpartition(": ")[2].split()
    engine.send_signal(signal.SIGKILL)
    engine.wait(30)
    engine.stdout.close()
    assert len(pids) == 2
    assert all(gone(int(pid)) for pid in pids)
    Path(tmp_path, "again").touch()
    async with session(address, tmp_path) as here:
        (entry,) = (await here.record.entries()).values()
        assert entry.state == "begun"
        assert [await phases.expand(here, plan) for _ in range(2)] == [1, 0]


async def test_a_phase_has_a_script_or_a_command(tmp_path):
    with pytest.raises(
        InputRefused, match=r"phases.toml:1: expand is in expand.sql already: a phase has one"
    ):
        await scripts(tmp_path, {"expand": b"select 1"}, expand=program("print()"))


async def test_a_backfill_by_a_program_is_verified_too_and_another_command_is_another_plan(tmp_path):
    plans = []
    for number, by_phase in enumerate(
        [{}, {"verify": program("print()")}, {"verify": program("print(1)")}], start=1
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        plans.append(await scripts(folder, backfill=program("print()"), **by_phase))
    (finding,) = await judged(plans[0])
    assert (finding.rule, finding.file, finding.line) == ("verify", FILE, 1)
    assert await judged(plans[1]) == []
    assert len({plan.digest for plan in plans}) == 3
