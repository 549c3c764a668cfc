"""What people say to a rollout, by the command and in git: in a farm whose remote is gone all the time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest
from dairy_farm import GOAT, OK, Dairy, at_step, held
from ports import free_port

USAGE, NOT_FOUND, CONFLICT, TIMED_OUT, UNREACHABLE, DEGRADED, REFUSED = 2, 3, 4, 5, 6, 7, 8


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
    (waiting,) = farm.shows("rollout", "status", "goat")["queue"]
    farm.says("rollout", "resume", "goat")
    farm.at(rollout, at_step("approve"))
    farm.says("rollout", "watch", "goat", "--timeout", "0.5", status=TIMED_OUT)
    farm.says("rollout", "approve", "goat")

    assert farm.receipt(rollout)["outcome"] == "done"
    assert json.loads(farm.file()) == {f"version={version}": {"weight": 100, "replicas": 1}}
    queued = farm.at(waiting["rollout"], at_step("pause"))
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


def test_a_verb_that_changes_nothing_says_why_and_what_fits(farm: Dairy):
    rollout = farm.begun(farm.version())
    farm.at(rollout, at_step("pause"))
    for verb, why in (
        ("approve", "does not wait for approval, it is at `pause`"),
        ("reject", "does not wait for approval"),
        ("retry", "it is not stuck"),
    ):
        told = farm.says("rollout", verb, "goat", "--reason", "a try", status=CONFLICT)
        assert "a try; it" in told
        assert why in told
        assert "milkrun rollout status goat" in told
    for _ in range(2):  # what is so already is no mistake
        assert "held" in farm.says("rollout", "pause", "goat")
    assert "`resume` lets it go on" in farm.says("rollout", "retry", "goat", status=CONFLICT)
    farm.says("rollout", "resume", "goat")
    farm.says("rollout", "resume", "goat")
    farm.at(rollout, at_step("approve"))
    for verb, why in (("resume", "nothing is held"), ("promote", "no wait that could be skipped")):
        told = farm.says("rollout", verb, "goat", status=CONFLICT)
        assert why in told
        assert "milkrun rollout approve goat" in told
    farm.says("rollout", "reject", "goat")
    assert farm.receipt(rollout)["outcome"] == "taken-back"


def test_who_waits_for_a_turn_is_told_listed_and_can_be_called_off(farm: Dairy):
    under_way, second, third = (farm.version() for _ in range(3))
    first = farm.begun(under_way)
    farm.at(first, at_step("pause"))
    follower = farm.start("deploy", "goat", second)
    assert first in farm.until(follower, "waits for the end of")
    (waiting,) = farm.shows("rollout", "status", "goat")["queue"]
    last = farm.shows("deploy", "goat", third, "--no-wait")
    assert last["behind"] == [first, waiting["rollout"]]
    listed = farm.says("rollout", "status", "goat")
    assert listed.index(f"waits for its turn: goat {second}") < listed.index(f"goat {third}")

    told = farm.says("rollout", "abort", "goat", "--queued", third, "--reason", "wrong one")
    assert "will not begin: called off by" in told
    assert farm.receipt(last["rollout"])["outcome"] == "refused"
    farm.says("rollout", "abort", "goat", "--queued", waiting["rollout"])
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == CONFLICT, out
    assert "called off by" in out
    assert farm.shows("rollout", "status", "goat")["queue"] == []
    assert "waits for its turn" in farm.says("rollout", "abort", "goat", "--queued", third, status=CONFLICT)
    farm.says("rollout", "abort", "goat", "--queued", third, "--force", status=USAGE)
    assert farm.seen()["rollout"] == first, "what is under way goes on"
    farm.says("rollout", "abort", "goat")
    assert farm.receipt(first)["outcome"] == "taken-back"


def test_one_that_no_engine_has_begun_is_called_off_before_it_begins(farm: Dairy):
    before, engine = farm.file(), farm.pid("rollouts")
    os.kill(engine, signal.SIGSTOP)
    try:
        rollout = farm.begun(farm.version())
        abort = farm.start("rollout", "abort", "goat")
        farm.eventually(lambda: len(farm.stands()[0].intents) == 2)
    finally:
        os.kill(engine, signal.SIGCONT)
    out, _ = abort.communicate(timeout=60)
    assert abort.returncode == OK, out
    assert "will not begin" in out
    assert farm.receipt(rollout)["commits"] == []
    assert farm.file() == before


def test_undo_takes_no_version_that_never_served(farm: Dairy):
    before, head = json.loads(farm.file()), farm.git("rev-parse", "HEAD")
    taken_back, never = farm.version(), farm.version()
    rollout = farm.begun(taken_back)
    farm.at(rollout, at_step("pause"))
    (stable,) = (name.removeprefix("version=") for name in before)
    assert "taking-back" in farm.says("rollout", "undo", "goat", "--to", stable)
    assert farm.receipt(rollout)["outcome"] == "taken-back"
    for version in (taken_back, never):
        told = farm.says("rollout", "undo", "goat", "--to", version, status=CONFLICT)
        assert "not known to have served" in told
        assert f"milkrun deploy goat {version}" in told
    assert json.loads(farm.file()) == before
    assert farm.git("diff", "--name-only", head) == ""


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
    assert "resume or abort" in farm.says("rollout", "promote", "goat", "--full", status=CONFLICT)
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
        (("deploy", "goa", "1.0.0"), NOT_FOUND, "did you mean `goat`?"),
        (("rollout", "status", "goa"), NOT_FOUND, "did you mean goat?"),
        (("rollout", "pause", "goa"), NOT_FOUND, "did you mean goat?"),
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
