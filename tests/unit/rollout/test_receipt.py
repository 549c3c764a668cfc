"""What a receipt says: the commits that were made, who had the traffic, and what may still run."""

from __future__ import annotations

import msgspec
import pytest
from rollout_world import NEW, OLD, World

from milkrun.model import Health, Instance, InstanceId, VersionName, VersionWish
from milkrun.rollout import moving
from milkrun.rollout.receipt import Receipt, lines, receipt, served
from milkrun.rollout.state import Intent, Phase
from milkrun.rollout.steps import Move
from milkrun.settings.rollout import RolloutSettings

STEPS = RolloutSettings(steps=["weight 50%"], bake_s=0)
SPLIT = b'{"version=0.0.1": {"weight": 80, "replicas": 2}, "version=0.0.0": {"weight": 20, "replicas": 1}}\n'


def test_a_rollout_that_was_taken_back_before_it_changed_anything_names_no_commit():
    world = World(1, STEPS)
    world.intents = [Intent(id="i", verb="abort", by="kate", at=world.now)]
    world.turn()
    assert world.run().phase is Phase.TAKEN_BACK
    assert receipt(world.stored, world.now).commits == []
    assert world.generation == 1


@pytest.mark.parametrize("kill", [0.0, 0.3])
def test_all_commits_that_it_made_are_in_it_whoever_dies(kill: float):
    for seed in range(30):
        world = World(seed, STEPS, kill=kill)
        assert world.run().phase is Phase.DONE
        made = [f"{number:040x}" for number in range(2, world.generation + 1)]
        assert receipt(world.stored, world.now).commits == made, f"seed {seed}"


def test_it_says_how_the_traffic_was_split_before():
    world = World(1, STEPS, base=SPLIT)
    assert receipt(world.stored, world.now).weights == {OLD: 80.0, "0.0.0": 20.0}


def lost(world: World, *ids: str, version: VersionName = OLD) -> None:
    """These instances are in the catalog, but their agent no longer reports."""
    seen = world.facts

    def facts():
        found = seen()
        gone = [
            Instance(
                id=InstanceId(one),
                service=world.plan.service,
                version=version,
                address="h",
                port=1,
                health=Health.LOST,
            )
            for one in ids
        ]
        placed = {InstanceId(one) for one in ids}
        return msgspec.structs.replace(found, instances=[*found.instances, *gone], placed=placed)

    world.facts = facts


@pytest.mark.parametrize("strategy", ["canary", "rolling"])  # the one leaves in one move, the other in two
def test_what_may_still_run_on_a_dead_host_is_told_once_and_not_waited_for(strategy: str):
    world = World(1, STEPS, strategy=strategy)
    lost(world, "goat-0.0.1-dead-1")
    assert world.run().phase is Phase.DONE
    said = "1 instance of 0.0.1 may still run: its agent does not report (goat-0.0.1-dead-1)"
    assert [entry.said for entry in world.journal].count(said) == 1
    assert said in lines(receipt(world.stored, world.now))
    assert OLD not in world.stored.wish.versions


def test_it_is_not_told_of_a_version_that_stays_or_that_is_not_run_by_git():
    world = World(1, STEPS)
    lost(world, "a", "b")
    facts = world.facts()
    for kept in (VersionWish(weight=1.0, replicas=1), VersionWish(weight=1.0)):
        assert moving.unseen(world.stored, Move("m", {OLD: kept}), facts) == []
    (said,) = moving.unseen(world.stored, Move("m", {OLD: VersionWish(weight=0.0, replicas=0)}), facts)
    assert said == "2 instances of 0.0.1 may still run: their agents do not report (a, b)"
    strangers = msgspec.structs.replace(facts, placed=set())
    assert moving.unseen(world.stored, Move("m", {}), strangers) == [], (
        "guests and hand-made ones are nobody's"
    )


def test_only_what_was_rolled_out_to_its_end_or_was_there_before_has_served():
    def of(version: str, outcome: str, *old: str) -> Receipt:
        state = World(1, STEPS).stored
        found = receipt(state, 1.0)
        return msgspec.structs.replace(
            found, version=VersionName(version), outcome=outcome, old=[VersionName(name) for name in old]
        )

    history = [
        of("2", "done", "1", "0"),
        of("3", "taken-back", "2"),
        of("4", "refused"),
        of("5", "left", "2"),
        of("6", "running", "2"),
    ]
    assert served(history) == {"0", "1", "2"}
    assert served([]) == set()
    assert NEW not in served(history)
