"""What somebody asks, what goes wrong beside the new version, and where it ends: in the world of rollout_world.py."""

from __future__ import annotations

import msgspec
import pytest
from rollout_database import Database
from rollout_world import BASE, NEW, OLD, Sickness, World

from milkrun.rollout import machine, migrating
from milkrun.rollout.state import Cause, Intent, Phase
from milkrun.rollout.steps import Analyse, Approve, Pause
from milkrun.settings import deploy
from milkrun.settings.rollout import AnalysisSettings, RolloutSettings

QUICK = RolloutSettings(
    steps=["smoke", "weight 10%", "pause", "approve 60s", "weight 50%", "analyse 10s"],
    bake_s=20,
    healthy_limit_s=60,
    progress_limit_s=120,
    analysis=AnalysisSettings(min_requests=200, failures_worse_by=2.0),
)


def changed(**settings) -> RolloutSettings:
    return msgspec.structs.replace(QUICK, **settings)


def say(world: World, verb: str, **arguments) -> None:
    world.intents.append(Intent(id="x", verb=verb, by="somebody", at=world.now, **arguments))
    world.turn()


def until(world: World, fact, limit_s: float = 600) -> None:
    end = world.now + limit_s
    while not fact(world.stored):
        assert world.now < end, f"{world.stored.phase} {world.stored.step} {world.stored.waits_for}"
        world.tick()
        world.turn()


def at(kind):
    return lambda state: isinstance(state.step, kind)


def said(world: World) -> list[str]:
    return [entry.said for entry in world.journal]


def share(world: World, version) -> float:
    return deploy.parse(world.file, "f").weights.get(version, 0.0)


def test_a_pause_without_end_waits_for_resume_and_an_approval_for_somebody():
    world = World(1, QUICK)
    until(world, at(Pause))
    world.run(limit_s=400)
    assert isinstance(world.stored.step, Pause)
    say(world, "resume")
    until(world, at(Approve))
    say(world, "approve")
    until(world, at(Analyse))
    assert world.run().phase is Phase.DONE


def test_a_rejected_one_is_taken_back():
    world = World(2, QUICK)
    until(world, at(Pause))
    say(world, "resume")
    until(world, at(Approve))
    say(world, "reject", reason="not on a Friday")
    state = world.run()
    assert (state.phase, world.file) == (Phase.TAKEN_BACK, BASE)
    assert "not on a Friday" in state.reason


def test_an_approval_that_nobody_gave_is_a_rejection():
    world = World(3, QUICK)
    until(world, at(Pause))
    say(world, "resume")
    state = world.run()
    assert state.phase is Phase.TAKEN_BACK
    assert "nobody approved it within 60 s" in state.reason


def test_what_does_not_fit_changes_nothing():
    world = World(4, QUICK)
    until(world, at(Pause))
    before = world.stored
    for verb in ("approve", "reject", "retry"):
        say(world, verb)
        assert (world.stored.index, world.stored.phase) == (before.index, before.phase)


def test_promoted_in_full_it_skips_what_is_left():
    world = World(5, QUICK)
    until(world, at(Pause))
    say(world, "promote", full=True, reason="hurry")
    state = world.run()
    assert state.phase is Phase.DONE
    assert not any("weight 50%" in entry.step for entry in world.journal)
    assert any("hurry" in line for line in said(world))


def test_a_pause_by_hand_stops_the_clock_and_not_the_guards():
    world = World(6, changed(steps=["weight 50%", "analyse 10s"]), sick=Sickness(crashes_after_s=60))
    until(world, at(Analyse))
    say(world, "pause")
    assert world.stored.paused
    state = world.run()
    assert state.phase is Phase.TAKEN_BACK
    assert "restart" in state.reason


def test_paused_by_hand_it_stays_where_it_is_and_goes_on_with_the_time_it_had():
    world = World(7, changed(steps=["weight 50%", "analyse 30s"], total_limit_s=100, progress_limit_s=90))
    until(world, at(Analyse))
    say(world, "pause")
    world.run(limit_s=500)
    assert world.stored.paused
    assert share(world, NEW) == 50
    say(world, "resume")
    assert world.run().phase is Phase.DONE


def test_held_instead_of_taken_back_where_the_settings_say_so():
    world = World(8, changed(on_failure="hold", steps=["smoke", "weight 10%"]), sick=Sickness(bad_smoke=True))
    until(world, lambda state: state.paused is not None)
    assert world.stored.paused.cause is Cause.FAILED
    world.run(limit_s=100)
    assert world.stored.phase is Phase.RUNNING
    world.sick = Sickness()
    say(world, "retry")
    assert world.run().phase is Phase.DONE


@pytest.mark.parametrize("strategy", ["canary", "blue-green"])
def test_when_the_old_version_is_broken_its_fix_goes_out(strategy):
    """The old instances are dead: nothing to compare with, and a person decides; nothing waits for their health."""
    world = World(
        9,
        changed(steps=["smoke", "weight 10%", "analyse 5s"], analysis=AnalysisSettings(extend_s=5)),
        strategy=strategy,
    )
    for unit in world.units:
        unit.healthy_at = 1e12
    world.routers[0].wish = world.routers[1].wish = deploy.parse(BASE, "f")
    world.broken_old = True
    until(world, lambda state: state.over or state.paused is not None)
    if strategy == "canary":
        assert world.stored.paused.cause is Cause.NO_VERDICT
        say(world, "promote", full=True)
    assert world.run().phase is Phase.DONE


def test_back_to_a_broken_version_needs_a_person_and_what_serves_goes_on_serving():
    world = World(10, changed(steps=["weight 50%", "pause"]))
    until(world, at(Pause))
    for unit in world.units:
        if unit.version == OLD:
            unit.healthy_at = 1e12
    world.broken_old = True
    say(world, "abort")
    state = world.run()
    assert state.phase is Phase.NEEDS_PERSON
    assert "0.0.1 to become healthy" in state.waits_for[0]
    assert len(world.healthy(NEW)) == 3
    for unit in world.units:
        if unit.version == OLD:
            unit.healthy_at = world.now
    say(world, "retry")
    assert world.run().phase is Phase.TAKEN_BACK
    assert world.file == BASE


def test_one_that_needs_a_person_can_be_left_as_it_is():
    world = World(11, changed(steps=["weight 50%", "pause"]))
    until(world, at(Pause))
    before = world.file
    say(world, "abort", full=True)
    assert (world.stored.phase, world.file) == (Phase.LEFT, before)


def test_in_the_bake_undo_is_one_commit():
    world = World(12, changed(steps=["weight 50%"]))
    until(world, lambda state: isinstance(state.step, Pause) and state.step.name == "bake")
    commits = world.generation
    say(world, "abort", reason="undo")
    until(world, lambda state: state.index == 1 and state.phase is Phase.TAKING_BACK)
    assert world.generation == commits + 1
    assert share(world, OLD) == 100
    assert world.run().phase is Phase.TAKEN_BACK


def test_after_the_old_ones_were_stopped_they_start_before_they_get_traffic():
    world = World(13, changed(steps=["weight 50%"], bake_s=0))
    until(world, lambda state: state.index == len(state.steps) - 1 and state.commit is not None)
    say(world, "abort")
    state = world.run()
    assert (state.phase, world.file) == (Phase.TAKEN_BACK, BASE)
    assert any(entry.step == "start the old instances again" for entry in world.journal)


def test_a_dead_router_is_waited_for_until_its_report_is_gone():
    world = World(14, changed(steps=["weight 50%"]))
    world.routers[1].lag_s = 1e12
    until(world, lambda state: "r1, which serves" in "".join(state.waits_for))
    del world.routers[1]
    assert world.run().phase is Phase.DONE


def test_no_step_waits_for_ever():
    world = World(15, changed(steps=["weight 50%"]))
    world.routers[1].lag_s = 1e12
    state = world.run()
    assert state.phase is Phase.NEEDS_PERSON  # its router does not take the old shares either
    assert "still waits for r1" in state.reason


def test_an_edit_that_is_taken_back_lets_it_go_on():
    world = World(16, changed(steps=["weight 50%", "pause 30s"]))
    until(world, at(Pause))
    ours = world.file
    world.write(b'{"version=0.0.1": {"weight": 1, "replicas": 9}}')
    until(world, lambda state: state.paused is not None)
    world.write(ours)
    assert world.run().phase is Phase.DONE


def test_resumed_over_an_edit_its_own_step_is_put_back():
    world = World(17, changed(steps=["weight 50%", "pause 30s"]))
    until(world, at(Pause))
    ours = world.file
    world.write(
        b'{"version=0.0.1": {"weight": 70, "replicas": 3}, "version=0.0.2": {"weight": 30, "replicas": 3}}'
    )
    until(world, lambda state: state.paused is not None)
    say(world, "resume")
    until(world, at(Pause))
    assert world.file == ours
    assert world.run().phase is Phase.DONE


def test_commits_that_were_reverted_are_a_taking_back():
    world = World(18, changed(steps=["weight 50%", "pause"]))
    until(world, at(Pause))
    world.write(BASE)
    state = world.run()
    assert (state.phase, world.file) == (Phase.TAKEN_BACK, BASE)
    assert "took its commits back in git" in state.reason


def undoing() -> tuple[World, Database]:
    """A world that goes back: when the last instance has left, the schema that only it needed is taken away."""
    database = Database(1)
    world = World(1, QUICK, strategy="undo")
    steps = migrating.undone(world.plan.steps, [OLD])
    plan = msgspec.structs.replace(world.plan, steps=steps, migrations={OLD: database.migration})
    world.stored = msgspec.structs.replace(world.stored, plan=plan, steps=steps)
    world.database = database
    return world, database


def test_an_undo_that_cannot_take_the_schema_away_is_held_and_never_goes_forward_again(monkeypatch):
    world, database = undoing()
    monkeypatch.setattr(database, "judge", lambda **_: None)
    monkeypatch.setattr(database, "carry_out", lambda *_, **__: machine.Tested(False, "the disk is full"))
    until(world, lambda state: state.paused)
    assert (world.stored.paused.cause, world.stored.paused.reason) == (Cause.FAILED, "the disk is full")
    file = world.file
    say(world, "retry")
    until(world, lambda state: state.paused)
    say(world, "abort")
    assert (world.stored.phase, world.file) == (Phase.LEFT, file)


def test_what_a_database_takes_counts_on_no_limit_of_the_rollout(monkeypatch):
    database = Database(1)
    world = World(
        1, changed(total_limit_s=100, progress_limit_s=100, steps=["weight 10%"], bake_s=0), database=database
    )
    slow = iter([None] * 300)  # its engine is at it, and says how far it is
    real = Database.carry_out

    def carry_out(step, *rest, **more):
        if step.phase == "backfill":
            for _ in slow:
                return None
        return real(database, step, *rest, **more)

    monkeypatch.setattr(database, "carry_out", carry_out)
    facts = world.facts
    monkeypatch.setattr(
        world, "facts", lambda: msgspec.structs.replace(facts(), progress=f"{world.now:g} rows")
    )
    assert world.run().phase is Phase.DONE
    assert world.stored.lost_s >= 300


def test_what_a_person_takes_counts_on_no_limit_and_is_told_in_the_receipt():
    world = World(1, changed(total_limit_s=300))
    until(world, at(Pause))
    started = world.stored.started
    say(world, "pause")
    until(world, lambda _: world.now > started + 1000, limit_s=2000)
    say(world, "resume")
    world.turn()
    assert world.stored.phase is Phase.RUNNING
    assert world.stored.started == started
