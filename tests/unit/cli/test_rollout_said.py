"""What people read of a rollout: an answer, a missing engine, a queue, and lists that are not cut."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner
from rollout_world import GOAT, World

from milkrun.cli import rollout_text
from milkrun.cli.program import program
from milkrun.cli.rollout_absence import ABSENT_S, AGAIN, ALONE, Absence
from milkrun.cli.rollout_say import heard
from milkrun.cli.rollout_wait import Follower
from milkrun.consul import Address, Registry, keys
from milkrun.errors import Conflict, TimedOut
from milkrun.rollout.queue import called_off
from milkrun.rollout.receipt import receipt
from milkrun.rollout.state import Entry, Intent, Phase
from milkrun.rollout.steps import Approve
from milkrun.rollout.store import Shelf
from milkrun.rollout.view import view
from milkrun.settings.rollout import RolloutSettings
from milkrun.testing.registry import embedded_registry

STATE = World(1, RolloutSettings()).stored
WANTED = Intent(id="mine", verb="abort", by="kate", at=1.0, rollout="r2")


def test_a_missing_engine_is_told_once_after_a_while_and_so_is_the_next_one():
    absence = Absence()
    assert absence.seen(acts=True, now=0.0) == ""
    assert absence.seen(acts=False, now=1.0) == ""
    assert absence.seen(acts=False, now=0.9 + ABSENT_S) == "", "a change of engines is nothing to tell"
    assert absence.seen(acts=False, now=1.0 + ABSENT_S) == ALONE
    assert absence.seen(acts=False, now=99.0) == ""
    assert absence.seen(acts=True, now=100.0) == AGAIN
    assert absence.seen(acts=True, now=101.0) == ""
    assert absence.seen(acts=False, now=102.0) == ""


async def test_whoever_follows_a_rollout_that_nobody_acts_on_hears_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("milkrun.cli.rollout_absence.ABSENT_S", 0.0)
    async with embedded_registry(tmp_path / "registry") as address, Registry(address) as registry:
        await registry.put(keys.rollout_state(GOAT), msgspec.json.encode(STATE))
        with pytest.raises(TimedOut):
            await Follower(address, GOAT, STATE.plan.id, json=True).until_end(0.6)
    assert capsys.readouterr().err.count(ALONE) == 1


def test_the_time_to_begin_counts_from_when_it_was_its_turn(capsys):
    start = Intent(id="s", verb="start", by="kate", at=1.0, rollout="r2", version="1.0")
    follower = Follower(Address(url="http://127.0.0.1:1"), GOAT, "r2", json=True)
    follower._next_since = -1e9
    for _ in range(2):
        follower._queued(Shelf(state=STATE, intents={"1": start}), None)
        follower._bounded(None, None)
    told = f"r2 waits for the end of {STATE.plan.id}; `milkrun rollout abort goat --queued r2` calls it off"
    assert capsys.readouterr().err.splitlines() == [told]
    over = msgspec.structs.replace(STATE, phase=Phase.DONE)
    follower._queued(Shelf(state=over, intents={"1": start}), None)
    follower._bounded(None, None)
    follower._next_since = -1e9
    with pytest.raises(TimedOut, match="no engine acts"):
        follower._bounded(None, None)


def test_an_answer_that_is_no_is_an_error_with_what_fits():
    approving = msgspec.structs.replace(STATE, steps=[Approve(0)], index=0)
    no = Entry(1.0, "fact", "", "resume by kate; nothing is held", answers="mine", refused=True)
    with pytest.raises(Conflict, match="nothing is held") as told:
        heard(Shelf(state=approving, journal=[no]), view(approving, [], [], 1.0), WANTED)
    assert told.value.remedy == "milkrun rollout approve goat, or milkrun rollout reject goat"
    yes = Entry(1.0, "fact", "", "pause by kate", answers="mine")
    other = msgspec.structs.replace(no, answers="another's")
    said = heard(Shelf(state=STATE, journal=[yes, other]), view(STATE, [], [], 1.0), WANTED)
    assert said == f"{STATE.plan.id} is running"


def test_an_answer_may_be_that_it_will_not_begin_or_that_it_has_ended():
    start = Intent(id="s", verb="start", by="kate", at=1.0, rollout="r2", version="1.0")
    (off,) = called_off(GOAT, {"1": start, "2": WANTED}, STATE, 1.0)
    shelf = Shelf(state=STATE, history=[off.receipt])
    assert heard(shelf, None, WANTED) == "r2 will not begin: called off by kate"
    ended = msgspec.structs.replace(receipt(STATE, 1.0), rollout="r2", outcome="done")
    assert heard(Shelf(state=STATE, history=[ended]), None, WANTED) == "r2 is done"


def test_why_does_not_say_that_nothing_was_judged_when_it_knows_why():
    held = msgspec.structs.replace(STATE, phase=Phase.TAKEN_BACK, reason="1 instance to become healthy")
    said = rollout_text.why_lines(view(held, [], [], 1.0))
    assert any("to become healthy" in line for line in said)
    assert "it did not come so far" in said[-1]
    assert "nothing was judged yet" in rollout_text.why_lines(view(STATE, [], [], 1.0))[-1]


def test_who_waits_is_in_the_tree():
    start = Intent(id="s", verb="start", by="kate", at=1.0, rollout="r2", version="9.1", reason="a fix")
    found = rollout_text.tree_lines(view(STATE, [], [], 1.0, [start]))
    assert "waits for its turn: goat 9.1, by kate (r2): a fix" in found
    assert "--queued 9.1" in found[-1]


@pytest.mark.parametrize("group", [["rollout"], []])
def test_no_line_of_a_list_of_commands_is_cut(group: list[str]):
    shown = CliRunner().invoke(program, [*group, "--help"], terminal_width=100)
    assert shown.exit_code == 0
    assert "..." not in shown.output.partition("Commands:")[2]
