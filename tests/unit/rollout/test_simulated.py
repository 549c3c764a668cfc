"""Whole rollouts in a simulated world, each of one seed."""

from __future__ import annotations

import os

import msgspec
import pytest
from rollout_database import STATEMENTS, Database
from rollout_world import BASE, NEW, OLD, Sickness, World

from milkrun.rollout import asked, back, judging, machine, moving
from milkrun.rollout import plan as plans
from milkrun.rollout.state import Cause, Intent, Phase
from milkrun.rollout.steps import Migrate, Move
from milkrun.settings import deploy
from milkrun.settings.rollout import AnalysisSettings, RolloutSettings

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
SEEDS = int(os.environ.get("MILKRUN_SEEDS", "100000" if SOAK else "1000"))
ANALYSIS = AnalysisSettings(min_requests=200, failures_worse_by=2.0, extend_s=600)
QUICK = RolloutSettings(
    steps=["smoke", "weight 10%", "analyse 20s", "weight 50%", "analyse 10s"],
    bake_s=5,
    healthy_limit_s=60,
    progress_limit_s=120,
    total_limit_s=4000,
    analysis=ANALYSIS,
)
THEIRS = b'{"version=0.0.1": {"weight": 70, "replicas": 4}, "version=0.0.2": {"weight": 30, "replicas": 1}}'
pytestmark = pytest.mark.timeout(36_000 if SEEDS > 1000 else 300)
STRATEGIES = ("canary", "blue-green", "rolling")


def of(seed: int) -> dict:
    """A world's own strategy and trouble."""
    return {"strategy": STRATEGIES[seed % 3], "kill": (0.0, 0.05, 0.2)[seed // 3 % 3]}


@pytest.mark.parametrize("part", range(10))
def test_a_good_version_always_arrives_whoever_dies(part):
    for seed in range(part, SEEDS // 4, 10):
        world = World(seed, QUICK, **of(seed))
        state = world.run()
        assert state.phase is Phase.DONE, f"seed {seed}: {state.phase} {state.reason} {state.paused}"
        wish = deploy.parse(world.file, "f")
        assert list(wish.versions) == [NEW], f"seed {seed}"
        assert {unit.version for unit in world.units} == {NEW}, f"seed {seed}"


SICK = (
    Sickness(failing=0.3),
    Sickness(never_healthy=True),
    Sickness(crashes_after_s=6),
    Sickness(bad_smoke=True),
)


@pytest.mark.parametrize("part", range(10))
def test_a_bad_version_is_always_taken_back(part):
    for seed in range(part, SEEDS // 4, 10):
        sick = SICK[seed // 9 % len(SICK)]
        world = World(seed, QUICK, sick=sick, **of(seed))
        state = world.run()
        assert state.phase is Phase.TAKEN_BACK, f"seed {seed}: {state.phase} {state.reason} {state.paused}"
        assert state.reason
        assert world.file == BASE, f"seed {seed}"
        assert {unit.version for unit in world.units} == {OLD}, f"seed {seed}"


@pytest.mark.parametrize("part", range(10))
def test_it_can_be_aborted_at_any_moment(part):
    for seed in range(part, SEEDS // 4, 10):
        world = World(seed, QUICK, **of(seed))
        at = world.now + world.random.uniform(0, 70)

        def abort(world, at=at):
            if world.now >= at and not any(entry.said.startswith("abort") for entry in world.journal):
                world.intents = [Intent(id="x", verb="abort", by="somebody", at=world.now)]

        state = world.run(hooks=[abort])
        assert state.phase in (Phase.TAKEN_BACK, Phase.DONE), f"seed {seed}: {state.phase} {state.waits_for}"
        if state.phase is Phase.TAKEN_BACK:
            assert world.file == BASE, f"seed {seed}"
            assert {unit.version for unit in world.units} == {OLD}, f"seed {seed}"


@pytest.mark.parametrize("part", range(10))
def test_an_edit_of_somebody_else_is_never_overwritten(part):
    for seed in range(part, SEEDS // 4, 10):
        world = World(seed, QUICK, **of(seed))
        at = world.now + world.random.uniform(0, 40)

        def edit(world, at=at):
            if world.now >= at and world.edited_at is None and not world.stored.over:
                world.edited_at = world.now
                world.write(THEIRS)

        state = world.run(limit_s=120, hooks=[edit])
        if world.edited_at is None:
            assert state.phase is Phase.DONE
            continue
        assert world.file == THEIRS, f"seed {seed}"
        assert state.paused, f"seed {seed}: {state.phase}"
        assert state.paused.cause is Cause.FOREIGN_EDIT, f"seed {seed}: {state.paused}"


@pytest.mark.parametrize("part", range(10))
def test_a_migration_rides_along_whoever_dies(part):
    for seed in range(part, SEEDS // 8, 10):
        database = Database(seed)
        state = World(seed, QUICK, database=database, **of(seed)).run()
        assert state.phase is Phase.DONE, f"seed {seed}: {state.phase} {state.reason} {state.paused}"
        assert (database.expanded, database.filled) == (STATEMENTS, STATEMENTS), f"seed {seed}"


@pytest.mark.parametrize("part", range(10))
def test_a_migration_goes_back_with_its_version_from_any_moment(part):
    for seed in range(part, SEEDS // 8, 10):
        bad, sick = (
            ("expand", None),
            ("backfill", None),
            ("verify", None),
            (None, SICK[seed % 4]),
            (None, None),
        )[seed % 5]
        database = Database(seed, bad=bad)
        world = World(seed, QUICK, sick=sick or Sickness(), database=database, **of(seed))
        at = world.now + world.random.uniform(0, 70)

        def abort(world, at=at, bad=bad, sick=sick):
            told = any(entry.said.startswith("abort") for entry in world.journal)
            if not (bad or sick or told) and world.now >= at:
                world.intents = [Intent(id="x", verb="abort", by="somebody", at=world.now)]

        state = world.run(hooks=[abort])
        if state.phase is Phase.DONE:
            assert not bad
            continue
        assert state.phase is Phase.TAKEN_BACK, f"seed {seed}: {state.phase} {state.waits_for}"
        assert database.expanded == 0, f"seed {seed}"
        assert world.file == BASE, f"seed {seed}"


@pytest.mark.parametrize("part", range(10))
def test_whoever_promotes_in_full_or_pauses_skips_no_phase(part):
    for seed in range(part, SEEDS // 8, 10):
        database = Database(seed)
        world = World(seed, QUICK, database=database, **of(seed))

        def verbs(world):
            if world.random.random() < 0.2:
                verb = world.random.choice(["pause", "resume", "promote"])
                world.intents = [Intent(id="x", verb=verb, by="somebody", at=world.now, full=True)]

        state = world.run(hooks=[verbs])
        assert state.phase is Phase.DONE, f"seed {seed}: {state.phase} {state.reason}"
        assert (database.expanded, database.filled) == (STATEMENTS, STATEMENTS), f"seed {seed}"


def test_a_migration_without_an_undo_stays():
    database = Database(1, undo=False)
    state = World(1, QUICK, sick=Sickness(bad_smoke=True), database=database).run()
    assert (state.phase, database.expanded) == (Phase.TAKEN_BACK, STATEMENTS)


def test_no_traffic_is_no_success():
    world = World(1, msgspec.structs.replace(QUICK, total_limit_s=100_000), rate=0.0)
    state = world.run(limit_s=1500)
    assert state.phase is Phase.RUNNING
    assert state.paused
    assert state.paused.cause is Cause.NO_VERDICT


def _no_wait_for_routers(monkeypatch):
    """A move counts as done before anybody serves it."""
    real = moving.standing

    def hasty(state, move, commit, facts):
        found = real(state, move, commit, facts)
        if found.stage is moving.Stage.ROUTERS:
            return moving.Standing(stage=moving.Stage.DONE, served=True)
        return found

    monkeypatch.setattr(moving, "standing", hasty)


def _no_wait_for_health(monkeypatch):
    """New instances get traffic before they can take it."""
    monkeypatch.setattr(moving, "_lacking", lambda state, move, facts: [])


def _edits_are_not_seen(monkeypatch):
    """Whatever the file says is taken for the rollout's own."""

    def blind(turn):
        turn.set(wish=turn._facts.head.wish("f") or turn.state.wish)
        return False

    monkeypatch.setattr(machine._Turn, "_edited", blind)


def _nothing_is_bad(monkeypatch):
    """No guard and no comparison."""
    monkeypatch.setattr(judging, "judge", lambda state, facts, now: judging.Judged(state))


def _forgets_its_commit(monkeypatch):
    """An engine that died after its commit takes it for somebody else's."""
    monkeypatch.setattr(machine._Turn, "_at_head", lambda turn: None)


def _starts_before_it_expands(monkeypatch):
    """The expansion comes after the first move."""
    real = plans.migrating.woven

    def late(steps, *rest):
        found = list(real(steps, *rest))
        return [*found[1:2], found[0], *found[2:]]

    monkeypatch.setattr(plans.migrating, "woven", late)


def _promotion_skips_the_database(monkeypatch):
    """In full means in full."""

    def skips(state):
        moves = [number for number, step in enumerate(state.steps) if isinstance(step, Move)]
        return max([state.index, *moves[-2:-1]])

    monkeypatch.setattr(asked, "promotion", skips)


def _undone_at_once(monkeypatch):
    """The schema goes before those who need it."""
    real = back.steps

    def hasty(plan, now):
        return sorted(real(plan, now), key=lambda step: not isinstance(step, Migrate))

    monkeypatch.setattr(back, "steps", hasty)


PLANTED = [
    _no_wait_for_routers,
    _no_wait_for_health,
    _edits_are_not_seen,
    _nothing_is_bad,
    _forgets_its_commit,
]


PLANTED_UNDER_MIGRATIONS = [_starts_before_it_expands, _promotion_skips_the_database, _undone_at_once]
WORLDS = {
    **dict.fromkeys(
        PLANTED,
        (
            test_a_good_version_always_arrives_whoever_dies,
            test_a_bad_version_is_always_taken_back,
            test_an_edit_of_somebody_else_is_never_overwritten,
        ),
    ),
    **dict.fromkeys(
        PLANTED_UNDER_MIGRATIONS,
        (
            test_a_migration_rides_along_whoever_dies,
            test_a_migration_goes_back_with_its_version_from_any_moment,
            test_whoever_promotes_in_full_or_pauses_skips_no_phase,
        ),
    ),
}


@pytest.mark.parametrize("plant", WORLDS, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_bug_is_found(plant, monkeypatch):
    """Each of these worlds is green without the bug; with it, one of them is red."""
    plant(monkeypatch)
    for part in range(10):
        for test in WORLDS[plant]:
            try:
                test(part)
            except AssertionError:
                return
    pytest.fail("no world noticed it")
