"""examples/dairy-ledger: a column is split and another renamed under clients that never stop, in two rollouts."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psycopg
import pytest
from ports import free_port

from milkrun.rollout.migrations import phases, squawk
from milkrun.rollout.migrations.backfill import backfill
from milkrun.rollout.migrations.database import Address
from milkrun.rollout.migrations.files import Scripts
from milkrun.rollout.migrations.lint import lint
from milkrun.rollout.migrations.script import parse
from milkrun.rollout.migrations.session import opened
from milkrun.rollout.migrations.verify import verify
from milkrun.settings.migration import PHASES, MigrationSettings

EXAMPLE = Path(__file__).parents[3] / "examples" / "dairy-ledger"
DEMO = EXAMPLE / "demo"
WITHIN_S = 120


@pytest.fixture
def temporary():
    """A folder for all that the demo makes; the demo takes every file out of it."""
    folder = Path(tempfile.mkdtemp(prefix="mr-demo-"))
    folder.chmod(0o755)  # PostgreSQL's own user goes through it
    yield folder
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def demo(monkeypatch):
    """The demo's modules, by name; they are forgotten afterwards."""
    names = ("run", "clients", "cluster", "environment")
    monkeypatch.syspath_prepend(DEMO)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def started(temporary, *arguments, **more):
    return subprocess.Popen(
        [sys.executable, DEMO / "run.py", "--quick", *arguments],
        env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def ended(process):
    """What it printed. One that goes on for too long is interrupted: it leaves nothing behind then either."""
    try:
        return process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.communicate(timeout=WITHIN_S)


@pytest.mark.needs("postgres")
def test_a_split_and_a_rename_lose_nothing_and_refuse_nobody(temporary):
    process = started(temporary, "--json", "--bottles", "5000", "--rate", "150")
    out, talk = ended(process)
    assert process.returncode == 0, (out + talk)[-3000:]
    result = json.loads(out)
    assert (result["failures"], result["reads_failed"]) == ({}, 0)
    assert [result[key] for key in ("lost", "twice", "unknown", "wrong")] == [0, 0, 0, 0]
    assert (result["bottles"], result["litres"]) == (result["bottles_wanted"], result["litres_wanted"])
    assert result["bottles"] == 5000 + result["written"]
    assert [move["apart"] for move in result["moves"]] == [0, 0]
    assert [move["columns"] for move in result["moves"]] == [
        ["id", "ticket", "amount", "farmer", "goat"],
        ["id", "ticket", "farmer", "goat", "litres"],
    ]
    # All three versions had a part in it, and the clients were there.
    assert min(result["by_version"][version] for version in ("1.0", "2.0", "3.0")) > 0
    assert result["written"] > 100
    assert result["corrected"] > 50
    assert result["read"] > 100


@pytest.mark.needs("postgres")
def test_ctrl_c_leaves_nothing_behind(temporary):
    process = started(temporary, "--bottles", "100", start_new_session=True)
    for words in ("the clients begin", "taking all of it down"):  # and a second time, by who cannot wait
        while words not in (line := process.stderr.readline()):
            assert line
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, talk = ended(process)
    assert process.returncode == 130, talk
    assert "Traceback" not in talk
    here = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(temporary) in path.read_bytes().decode(errors="replace")
    ]
    assert here == []


def test_without_a_server_it_says_what_to_install(temporary):
    script = "import cluster, run, sys; cluster.PLACES = (); sys.exit(run.asyncio.run(run.main(run.asked())))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=DEMO, env={"PATH": "", "TMPDIR": str(temporary)},
        capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "apt-get install postgresql" in done.stderr
    assert "Traceback" not in done.stderr


def script(version, phase):
    file = EXAMPLE / "migrations" / "ledger" / version / f"{phase}.sql"
    return parse(file.read_bytes(), file.name)


@pytest.mark.parametrize("version", ["2.0", "3.0"])
async def test_its_scripts_are_as_the_rules_want_them(version):
    for phase in PHASES:
        assert script(version, phase).statements
        assert lint(script(version, phase), phase) == []
    file = EXAMPLE / "migrations" / "ledger" / version / "expand.sql"
    assert await squawk.lint(script(version, "expand"), file.read_bytes()) == []


async def listening(port):
    """Somebody takes connections there."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


@pytest.mark.needs("postgres")
async def test_either_change_can_be_taken_back_until_its_contract(url, demo):
    run = demo("run")
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE bottles")
    run.old_bottles(url, 1000)
    before = run.columns(url)
    for version, added in (("2.0", ["farmer", "goat"]), ("3.0", ["litres"])):
        scripts = Scripts({phase: script(version, phase) for phase in PHASES})
        async with opened(Address(url), "ledger", version, MigrationSettings(), lambda _: None) as session:
            for _ in range(2):
                await phases.expand(session, scripts)
                await backfill(session, scripts.of("backfill"), lambda _: None)
                assert await verify(session, scripts.of("verify")) == []
                assert run.columns(url) == before + added
                await phases.undo(session, scripts)
                assert run.columns(url) == before
    assert run.one(url, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    assert run.one(url, "SELECT count(*) FROM pg_indexes WHERE tablename = 'bottles'") == 2


TROUBLE = """
CREATE SEQUENCE tries;
CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE nextval('tries') % 4
        WHEN 1 THEN RAISE EXCEPTION 'a deadlock' USING ERRCODE = '40P01';
        WHEN 2 THEN PERFORM pg_terminate_backend(pg_backend_pid());
        ELSE
    END CASE;
    RETURN NEW;
END $$;
CREATE TRIGGER trouble BEFORE INSERT OR UPDATE ON bottles FOR EACH ROW EXECUTE FUNCTION trouble();
"""


class App(NamedTuple):
    """Where it answers, and what was in its table before."""

    url: str
    bottles: dict


@pytest.fixture
async def app(url, demo, tmp_path):
    """Where a ledger of 1.0 listens, with ten bottles in its table; it ends well."""
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE bottles")
    run = demo("run")
    bottles = run.old_bottles(url, 10)
    (tmp_path / "url").write_text(url)
    port = free_port()
    name = {
        "SERVICE": "ledger",
        "VERSION": "1.0",
        "INSTANCE": "ledger-1",
        "ADDRESS": "127.0.0.1",
        "PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLE / "apps" / "ledger.py", "1.0", stdout=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "DATABASE_FILE": str(tmp_path / "url"), "PGAPPNAME": "ledger/1.0/ledger-1"}
        | {f"MILKRUN_{key}": value for key, value in name.items()},
    )  # fmt: skip
    try:
        await listening(port)
        yield App(f"http://127.0.0.1:{port}/bottles", bottles)
    finally:
        process.terminate()
        status = await process.wait()
    assert status == 0

    assert run.one(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ledger/%'") == 0


@pytest.mark.needs("postgres")
async def test_a_bottle_is_written_down_once_and_what_is_none_is_refused(url, demo, app):
    bottle = {"ticket": str(uuid.uuid4()), "farmer": "anna", "goat": "heidi", "litres": 1.5}
    async with aiohttp.ClientSession() as http:

        async def sent(method, path="", **body):
            async with http.request(method, f"{app.url}{path}", json=body) as answer:
                return answer.status, (await answer.json())["written"] if answer.ok else None

        assert [await sent("POST", **bottle) for _ in range(2)] == [(200, 1), (200, 0)]
        for wrong in ({"ticket": "1"}, {"goat": "a/b"}, {"litres": -1}, {"litres": "NaN"}, {"farmer": None}):
            assert await sent("POST", **bottle | wrong) == (400, None)
        without = {key: bottle[key] for key in ("farmer", "goat")} | {"litres": 2}
        assert await sent("PUT", f"/{bottle['ticket']}", **without) == (200, 1)
        assert await sent("PUT", f"/{uuid.uuid4()}", **without) == (404, None)
        async with http.get(app.url) as answer:
            said = await answer.json()
    assert said["ledger"] == {"service": "ledger", "version": "1.0", "instance": "ledger-1"}
    assert len(said["bottles"]) == 10
    assert said["bottles"][0] == bottle | {"litres": "2.0"}
    assert demo("run").one(url, "SELECT count(*) FROM bottles") == 11


@pytest.mark.needs("postgres")
async def test_the_app_bears_deadlocks_and_lost_sessions_and_the_comparison_sees_what_is_wrong(
    url, demo, app
):
    run, clients = demo("run"), demo("clients")
    wanted = app.bottles
    with psycopg.connect(url) as connection:
        connection.execute(TROUBLE)
    async with clients.writing(app.url, writers=4, rate=200) as writers:
        while writers.written + writers.corrected + writers.failures.total() < 60:
            await asyncio.sleep(0.01)
    assert writers.failures == {}
    with psycopg.connect(url) as connection:  # as 3.0 would find it
        connection.execute("DROP TRIGGER trouble ON bottles")
        connection.execute("ALTER TABLE bottles ADD farmer text, ADD goat text")
        connection.execute(
            "UPDATE bottles SET farmer = split_part(label, '/', 1), goat = split_part(label, '/', 2)"
        )
        connection.execute("ALTER TABLE bottles RENAME amount TO litres")
    wanted |= writers.sold
    assert run.compared(url, wanted) == dict.fromkeys(run.KINDS, 0)
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM bottles WHERE id = 1")
        connection.execute("UPDATE bottles SET litres = litres + 1 WHERE id IN (2, 3)")
        connection.execute("UPDATE bottles SET ticket = gen_random_uuid() WHERE id = 4")
        connection.execute("ALTER TABLE bottles DROP CONSTRAINT bottles_ticket_key")
        connection.execute(
            "INSERT INTO bottles (ticket, label, farmer, goat, litres)"
            " SELECT ticket, label, farmer, goat, litres FROM bottles WHERE id = 5"
        )
    assert run.compared(url, wanted) == {"lost": 2, "twice": 1, "unknown": 1, "wrong": 2}
