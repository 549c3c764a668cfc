"""What people say to a rollout, by the command and in git: in a farm whose remote is gone all the time."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from farm import Farm
from ports import free_port

from milkrun.cli.rollout_wait import read
from milkrun.consul import Registry
from milkrun.model import ServiceName
from milkrun.rollout.store import Shelf
from milkrun.up.record import load as record

OK, USAGE, NOT_FOUND, CONFLICT, TIMED_OUT, UNREACHABLE, DEGRADED, REFUSED = 0, 2, 3, 4, 5, 6, 7, 8

GOAT = """command = ["{python}", "apps/goat.py"]

[env]
DAIRY_SICK = "9.9.9: never healthy"

[health]
interval_s = 0.2

[rollout]
steps = ["smoke", "weight 20%", "pause", "approve", "weight 60%"]
bake_s = 0.0
"""
FARMER = """command = ["{python}", "apps/farmer.py"]
needs = ["goat"]

[health]
interval_s = 0.2

[rollout]
strategy = "blue-green"
bake_s = 0.0
"""


class Dairy(Farm):
    """A farm of one goat and one farmer, and what its commands say."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._numbers = itertools.count(1)
        for service in ("goat", "farmer"):
            self.write(f"deploy/{service}.json", '{"version=0.0.1": {"weight": 100, "replicas": 1}}\n')
        self.write("services/goat.toml", GOAT)
        self.write("services/farmer.toml", FARMER)
        settings = (path / "milkrun.toml").read_text()
        self.write("milkrun.toml", f'{settings}\n[git]\npush = "file://{path.parent}/gone.git"\n')
        self.commit("Quick rollouts, and a remote that is not there")

    def write(self, file: str, text: str) -> None:
        (self.path / file).write_text(text)

    def version(self) -> str:
        """One that was never there."""
        return f"1.0.{next(self._numbers)}"

    def says(self, *arguments: str, status: int = OK) -> str:
        """The command ends with this status; returned is what it says to people."""
        done = self.milkrun(*arguments)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr + done.stdout

    def shows(self, *arguments: str, status: int = OK) -> dict:
        """What the command prints as one JSON object."""
        done = self.milkrun(*arguments, "--json")
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def begun(self, version: str, *options: str, service: str = "goat") -> str:
        """The rollout's id."""
        return self.shows("deploy", service, version, "--no-wait", *options)["rollout"]

    def stands(self, service: str = "goat") -> tuple[Shelf, dict]:
        """What the registry has of the service's rollouts, and how the newest one stands. Commands show the same."""

        async def look() -> tuple[Shelf, dict]:
            async with Registry(self.address) as registry:
                shelf, seen = await read(registry, ServiceName(service))
                return shelf, msgspec.to_builtins(seen) if seen else {}

        return asyncio.run(look())

    def seen(self, service: str = "goat") -> dict:
        """How the newest rollout stands."""
        return self.stands(service)[1]

    def at(self, rollout: str, fact: Callable[[dict], bool], service: str = "goat") -> dict:
        """The rollout as it stands once the fact is true."""
        found: dict = {}

        def fits() -> bool:
            found.clear()
            found.update(self.seen(service))
            return found.get("rollout") == rollout and fact(found)

        self.eventually(fits, 60.0)
        return found

    def receipt(self, rollout: str, service: str = "goat") -> dict:
        """Its receipt, once it has one."""
        found: list[dict] = []

        def there() -> bool:
            history = self.stands(service)[0].history
            found[:] = [msgspec.to_builtins(receipt) for receipt in history if receipt.rollout == rollout]
            return bool(found)

        self.eventually(there, 60.0)
        return found[0]

    def pid(self, part: str) -> int:
        known = record(self.folder)
        assert known
        return known.parts[part].identity.pid

    def file(self) -> str:
        return self.git("show", "HEAD:deploy/goat.json")

    def edit(self, text: str) -> str:
        """Somebody else writes into the deploy file."""
        self.write("deploy/goat.json", text)
        return self.commit("by hand")


def at_step(name: str) -> Callable[[dict], bool]:
    """Whether the rollout is at this step."""
    return lambda seen: any(step["name"] == name and step["state"] == "now" for step in seen["steps"])


def held(seen: dict) -> bool:
    return bool(seen["paused"])


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dairy]:
    made = Dairy(tmp_path_factory.mktemp("verbs") / "farm")
    try:
        made.up()
        yield made
    finally:
        made.end()


@pytest.fixture(autouse=True)
def _over(farm: Dairy) -> Iterator[None]:
    """A test that fails leaves no rollout that the next one would have to wait for."""
    yield
    shelf, _ = farm.stands()
    if shelf.state and not shelf.state.over:
        farm.milkrun("rollout", "abort", "goat", "--force")


def test_a_rollout_is_paused_resumed_approved_and_watched(farm: Dairy):
    version = farm.version()
    rollout = farm.begun(version, "--reason", "a try")
    farm.at(rollout, at_step("pause"))
    assert farm.shows("rollout", "status", "goat")["version"] == version
    assert "held" in farm.says("rollout", "pause", "goat", "--reason", "lunch")
    assert "lunch" in farm.shows("rollout", "status", "goat", status=DEGRADED)["paused"]
    farm.says("rollout", "resume", "goat")
    farm.at(rollout, lambda seen: not seen["paused"])
    assert at_step("pause")(farm.seen()), "the first resume ends the hold, the second one the step"
    farm.says("deploy", "goat", "5.0.0", "--timeout", "0.5", status=TIMED_OUT)  # waits for its turn
    farm.says("rollout", "resume", "goat")
    farm.at(rollout, at_step("approve"))
    farm.says("rollout", "watch", "goat", "--timeout", "0.5", status=TIMED_OUT)
    farm.says("rollout", "approve", "goat")

    assert farm.receipt(rollout)["outcome"] == "done"
    assert json.loads(farm.file()) == {f"version={version}": {"weight": 100, "replicas": 1}}
    queued = farm.at(
        farm.seen()["rollout"], lambda seen: seen["version"] == "5.0.0" and at_step("pause")(seen)
    )
    farm.says("rollout", "promote", "goat", "--full")
    assert farm.shows("rollout", "watch", "goat")["receipt"]["version"] == "5.0.0"
    assert farm.receipt(queued["rollout"])["old"] == [version]
    assert farm.shows("rollout", "why", "goat")["reason"] == ""
    journal = farm.shows("rollout", "history", "goat", "--journal")["journal"]
    assert any("promote by" in entry["said"] for entry in journal)
    for about in (("why",), ("history",), ("history", "--journal"), ("status",)):
        assert farm.says("rollout", about[0], "goat", *about[1:]).strip()


def test_a_rejected_one_and_an_aborted_one_leave_everything_as_it_was(farm: Dairy):
    before = farm.file()
    rejected = farm.begun(farm.version())
    farm.at(rejected, at_step("pause"))
    farm.says("rollout", "promote", "goat")
    farm.at(rejected, at_step("approve"))
    farm.says("rollout", "reject", "goat", "--reason", "not today")
    farm.says("rollout", "watch", "goat", status=DEGRADED)
    assert "not today" in farm.receipt(rejected)["reason"]
    assert farm.file() == before

    aborted = farm.begun(farm.version())
    farm.at(aborted, at_step("weight 20%"))
    farm.says("rollout", "abort", "goat", "--reason", "enough")
    assert farm.receipt(aborted)["outcome"] == "taken-back"
    assert farm.file() == before
    farm.shows("rollout", "status", "goat", status=DEGRADED)
    assert "no rollout under way" in farm.says("rollout", "abort", "goat", status=CONFLICT)


def test_undo_goes_back_during_a_rollout_and_after_it(farm: Dairy):
    before = farm.file()
    stable = json.loads(before)
    during = farm.begun(farm.version())
    farm.at(during, at_step("pause"))
    farm.says("rollout", "undo", "goat")
    assert farm.receipt(during)["outcome"] == "taken-back"
    assert farm.file() == before

    version = farm.version()
    farm.says("deploy", "goat", version, "--strategy", "blue-green")
    assert list(json.loads(farm.file())) == [f"version={version}"]
    assert "goes back to" in farm.says("rollout", "undo", "goat", "--reason", "on second thoughts")
    assert json.loads(farm.file()) == stable
    farm.says("rollout", "undo", "goat", "--to", version)
    assert list(json.loads(farm.file())) == [f"version={version}"]


def test_one_that_is_held_for_its_failure_is_tried_again_or_taken_back(farm: Dairy):
    before = farm.file()
    farm.write(
        "services/goat.toml", f'{GOAT}on_failure = "hold"\nhealthy_limit_s = 1.0\nprogress_limit_s = 20.0\n'
    )
    farm.commit("Held")
    assert "is held" in farm.says("deploy", "goat", "9.9.9", status=DEGRADED)
    rollout = farm.seen()["rollout"]
    first = farm.seen()["paused"]
    assert "to become healthy" in first
    farm.says("rollout", "retry", "goat")
    farm.at(rollout, held)
    farm.says("rollout", "abort", "goat", "--force")
    assert farm.receipt(rollout)["outcome"] == "left"
    assert list(json.loads(farm.file())) == [*json.loads(before), "version=9.9.9"]
    farm.write("services/goat.toml", GOAT)
    farm.edit(before)


def test_somebody_elses_edit_holds_it_until_a_person_has_said_what_counts(farm: Dairy):
    before = farm.file()
    rollout = farm.begun(farm.version())
    farm.at(rollout, at_step("pause"))
    step = farm.file()
    edited = farm.edit(before.replace("100", "90"))
    assert edited[:10] in farm.at(rollout, held)["paused"]
    assert farm.git("rev-parse", "HEAD") == edited
    farm.says("rollout", "promote", "goat", "--full")
    assert farm.seen()["paused"], "not even a promotion writes over it unasked"
    farm.git("revert", "--no-edit", "HEAD")
    farm.at(rollout, lambda seen: not seen["paused"])
    assert farm.file() == step

    farm.edit(before.replace("100", "80"))
    farm.at(rollout, held)
    farm.says("rollout", "resume", "goat")
    farm.at(rollout, lambda seen: not seen["paused"])
    farm.eventually(lambda: json.loads(farm.file()) == json.loads(step))

    farm.at(rollout, at_step("pause"))
    farm.edit(before.replace("100", "70"))
    farm.at(rollout, held)
    farm.says("rollout", "abort", "goat")
    assert farm.receipt(rollout)["outcome"] == "taken-back"
    assert farm.file() == before


def test_git_revert_undoes_it_while_it_runs_and_after_it(farm: Dairy):
    before, base = farm.file(), farm.git("rev-parse", "HEAD")
    rollout = farm.begun(farm.version())
    farm.at(rollout, at_step("pause"))
    farm.git("revert", "--no-edit", f"{base}..HEAD")
    taken_back = farm.receipt(rollout)
    assert taken_back["outcome"] == "taken-back"
    assert "took its commits back in git" in taken_back["reason"]
    assert farm.file() == before

    base, version = farm.git("rev-parse", "HEAD"), farm.version()
    farm.says("deploy", "goat", version, "--strategy", "blue-green")
    farm.git("revert", "--no-edit", f"{base}..HEAD")
    assert farm.file() == before

    def as_before() -> bool:
        goats = [name for name in farm.processes() if name.startswith("goat-")]
        return len(goats) == 1 and f"goat-{version}-" not in goats[0]

    farm.eventually(as_before, 60.0)
    assert farm.seen()["phase"] == "done", "it is no rollout that went back"


def test_two_services_at_once_and_a_registry_that_does_not_answer(farm: Dairy):
    """The registry stands still for a while after both were asked for, and both come to their end."""
    registry = farm.pid("registry")
    goat, farmer = farm.version(), farm.version()
    first = farm.begun(goat, "--strategy", "blue-green")
    waiting = farm.start("deploy", "farmer", farmer)
    farm.at(first, lambda seen: seen["step"] >= 1)
    timer = threading.Timer(3.0, os.kill, (registry, signal.SIGCONT))
    os.kill(registry, signal.SIGSTOP)
    timer.start()
    try:
        out, _ = waiting.communicate(timeout=90)
    finally:
        timer.join()
    assert waiting.returncode == OK, out
    assert farm.receipt(first)["outcome"] == "done"
    receipts = farm.receipt(first), farm.shows("rollout", "history", "farmer")["history"][-1]
    begun, ended = (
        max(each["started"] for each in receipts),
        min(each["ended"] for each in receipts),
    )
    assert begun < ended, "they were under way at the same time"


def test_the_plan_that_was_looked_at_is_carried_out_or_none(farm: Dairy):
    version = farm.version()
    plan = farm.shows("rollout", "plan", "goat", version, "--strategy", "blue-green")["plan"]
    assert plan["digest"] in farm.says("rollout", "plan", "goat", version, "--strategy", "blue-green")
    head = farm.git("rev-parse", "HEAD")
    for digest in ("000000000000", "no digest at all", plan["digest"].upper() + "!"):
        told = farm.says(
            "deploy", "goat", version, "--strategy", "blue-green", "--digest", digest, status=CONFLICT
        )
        assert plan["digest"] in told
    farm.says(
        "deploy", "goat", version, "--digest", plan["digest"], status=CONFLICT
    )  # the canary is another plan
    assert farm.git("rev-parse", "HEAD") == head

    under_way = farm.begun(farm.version())
    farm.at(under_way, at_step("pause"))
    queued = farm.shows("rollout", "plan", "goat", version)["plan"]["digest"]
    follower = farm.start("deploy", "goat", version, "--digest", queued)
    farm.eventually(lambda: len(farm.stands()[0].intents) == 1)
    farm.says("rollout", "promote", "goat", "--full")
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == CONFLICT, out
    assert "refused" in out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("deploy", "sheep", "1.0.0"), NOT_FOUND, "sheep"),
        (("rollout", "plan", "sheep", "1.0.0"), NOT_FOUND, "sheep"),
        (("rollout", "status", "sheep"), NOT_FOUND, "no rollout"),
        (("rollout", "why", "sheep"), NOT_FOUND, "no rollout"),
        (("rollout", "pause", "sheep"), NOT_FOUND, "no rollout"),
        (("rollout", "undo", "sheep"), NOT_FOUND, "no rollout"),
        (("rollout", "watch", "sheep"), NOT_FOUND, "no rollout"),
        (("deploy", "goat", "not a version"), REFUSED, "not a version"),
        (("deploy", "goat", "../../etc"), REFUSED, "version"),
        (("deploy", "GOAT!", "1.0.0"), REFUSED, "service name"),
        (("rollout", "undo", "goat", "--to", "no version"), REFUSED, "version"),
        (("deploy", "goat", "1.0.0", "--replicas", "0"), USAGE, "replicas"),
        (("deploy", "goat", "1.0.0", "--strategy", "yolo"), USAGE, "strategy"),
        (("deploy", "goat"), USAGE, "VERSION"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(farm: Dairy, arguments, status: int, says: str):
    assert says in farm.says(*arguments, status=status)


def test_a_verb_needs_a_rollout_that_is_under_way(farm: Dairy):
    farm.says("deploy", "farmer", farm.version())
    assert "no rollout under way" in farm.says("rollout", "approve", "farmer", status=CONFLICT)


def test_nothing_to_do_and_nobody_to_ask(farm: Dairy):
    (now,) = json.loads(farm.file())
    version = now.removeprefix("version=")
    assert "nothing to roll out" in farm.says("deploy", "goat", version, status=CONFLICT)
    nobody = f"http://127.0.0.1:{free_port()}"
    head = farm.git("rev-parse", "HEAD")
    for arguments in (
        ("deploy", "goat", farm.version()),
        ("rollout", "status", "goat"),
        ("rollout", "abort", "goat"),
    ):
        farm.says(*arguments, "--registry", nobody, status=UNREACHABLE)
    assert farm.git("rev-parse", "HEAD") == head


def test_a_remote_that_was_gone_gets_everything_when_it_is_back_also_from_the_next_engine(farm: Dairy):
    """All of the above went on without it. The engine that made the commits dies before it could push them."""
    farm.says("deploy", "farmer", farm.version())
    assert "commits are not pushed" in farm.says("status", status=DEGRADED)
    remote = farm.path.parent / "gone.git"
    os.kill(farm.pid("rollouts"), signal.SIGKILL)
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    head = farm.git("rev-parse", "HEAD")

    def pushed() -> bool:
        asked = ["git", "rev-parse", "main"]
        done = subprocess.run(asked, cwd=remote, capture_output=True, text=True, check=False)
        return done.stdout.strip() == head

    farm.eventually(pushed, 60.0)
