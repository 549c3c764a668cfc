from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import Conflict, InputRefused
from milkrun.model import ServiceName, VersionName, VersionWish, Wish
from milkrun.rollout.plan import plan
from milkrun.rollout.steps import Hook, Move, Pause, Smoke
from milkrun.settings import deploy
from milkrun.settings.rollout import HookSettings, RolloutSettings

GOAT = ServiceName("goat")
V1, V2, V3 = (VersionName(f"0.0.{number}") for number in (1, 2, 3))
FARM = Wish(versions={V1: VersionWish(weight=80, replicas=2), V2: VersionWish(weight=20, replicas=1)})


def drawn(wish: Wish, version: VersionName = V3, **arguments):
    settings = arguments.pop("settings", RolloutSettings())
    return plan("r", GOAT, version, deploy.written(wish), settings, **arguments)


def moves(plan):
    return [step.versions for step in plan.steps if isinstance(step, Move)]


def told(versions):
    return {name: (each.weight, each.replicas) for name, each in versions.items()}


def test_a_canary_starts_without_traffic_and_ends_alone():
    steps = moves(drawn(FARM, settings=RolloutSettings(steps=["weight 10%"])))
    assert [told(step) for step in steps] == [
        {V1: (80, 2), V2: (20, 1), V3: (0, 3)},
        {V1: (72, 2), V2: (18, 1), V3: (10, 3)},
        {V1: (0, 2), V2: (0, 1), V3: (100, 3)},
        {V3: (100, 3)},
    ]


def test_blue_green_is_tested_and_then_shifted_at_once():
    found = drawn(FARM, strategy="blue-green", settings=RolloutSettings(bake_s=7))
    assert [type(step).__name__ for step in found.steps] == ["Move", "Smoke", "Move", "Pause", "Move"]
    assert found.steps[3] == Pause(7, "bake")


def test_a_ramp_goes_up_in_steps_each_of_which_is_watched():
    found = drawn(FARM, settings=RolloutSettings(steps=["weight 10%", "ramp 50% by 20% every 3s"]))
    assert [step[V3].weight for step in moves(found)] == [0, 10, 30, 50, 100, 100]
    assert found.steps.count(Pause(3, "watch")) == 2


def test_rolling_with_surge_starts_before_it_stops():
    wish = Wish(versions={V1: VersionWish(weight=100, replicas=3)})
    steps = moves(drawn(wish, V2, strategy="rolling", settings=RolloutSettings(batch=2, surge=2)))
    assert [told(step) for step in steps] == [
        {V1: (100, 3), V2: (0, 2)},
        {V1: (pytest.approx(33.3333), 1), V2: (pytest.approx(66.6667), 2)},
        {V1: (pytest.approx(33.3333), 1), V2: (pytest.approx(66.6667), 3)},
        {V1: (0, 0), V2: (100, 3)},
        {V2: (100, 3)},
    ]


def test_rolling_without_surge_stops_before_it_starts():
    wish = Wish(versions={V1: VersionWish(weight=100, replicas=2)})
    settings = RolloutSettings(surge=0, unavailable=1)
    steps = moves(drawn(wish, V2, strategy="rolling", settings=settings))
    assert told(steps[0]) == {V1: (100, 1), V2: (0, 1)}


def test_what_serves_already_goes_on_from_there():
    found = drawn(FARM, V2, settings=RolloutSettings(steps=["weight 10%", "weight 50%"]))
    assert [step[V2].weight for step in moves(found)] == [20, 50, 100, 100]


def test_a_first_version_has_nobody_to_compare_with():
    found = drawn(Wish(), V1, replicas=2, settings=RolloutSettings(bake_s=0))
    assert [told(step) for step in moves(found)] == [{V1: (100, 2)}, {V1: (100, 2)}]
    assert any(isinstance(step, Smoke) for step in found.steps)


def test_what_had_no_traffic_before_stays_as_it_was():
    dark = Wish(versions={**FARM.versions, VersionName("dark"): VersionWish(weight=0, replicas=4)})
    assert told(moves(drawn(dark))[-1]) == {V3: (100, 3), "dark": (0, 4)}


def test_without_weights_the_instances_are_the_weights():
    spread = Wish(versions={V1: VersionWish(replicas=3), V2: VersionWish(replicas=1)})
    found = drawn(spread, settings=RolloutSettings(steps=["weight 20%"]))
    assert told(moves(found)[1]) == {V1: (60, 3), V2: (20, 1), V3: (20, 4)}


def test_where_git_runs_nobody_only_the_weights_move():
    by_hand = Wish(versions={V1: VersionWish(weight=100)})
    assert told(moves(drawn(by_hand))[0]) == {V1: (100, None), V3: (0, None)}
    with pytest.raises(InputRefused, match="needs `replicas`"):
        drawn(by_hand, strategy="rolling")


def test_nothing_to_do_is_said():
    with pytest.raises(Conflict, match="has all the traffic already"):
        drawn(Wish(versions={V1: VersionWish(weight=5, replicas=1)}), V1)


def test_hooks_stand_at_their_phase():
    hooks = [
        HookSettings(phase=phase, url="http://x") for phase in ("before", "provisioned", "promoted", "done")
    ]
    found = drawn(FARM, strategy="blue-green", settings=RolloutSettings(hooks=hooks))
    assert [(number, step.phase) for number, step in enumerate(found.steps) if isinstance(step, Hook)] == [
        (0, "before"),
        (2, "provisioned"),
        (5, "promoted"),
        (8, "done"),
    ]


def test_the_digest_is_that_of_what_would_be_done():
    first = drawn(FARM)
    again = msgspec.structs.replace(drawn(FARM), id="another")
    assert first.digest == again.digest
    others = [
        drawn(FARM, VersionName("0.0.4")),
        drawn(FARM, strategy="rolling"),
        drawn(FARM, replicas=4),
        drawn(FARM, settings=RolloutSettings(bake_s=1)),
        drawn(Wish(versions={V1: VersionWish(weight=1, replicas=1)})),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 6


counts = st.integers(1, 12)
wishes = st.dictionaries(
    st.sampled_from([V1, V2, VersionName("0.0.8")]),
    st.builds(VersionWish, weight=st.integers(0, 100), replicas=counts),
    min_size=1,
).map(lambda versions: Wish(versions=versions))
settings = st.builds(
    RolloutSettings,
    strategy=st.sampled_from(["canary", "blue-green", "rolling"]),
    batch=counts,
    surge=st.integers(0, 5),
    unavailable=st.integers(1, 5),
)


@given(wishes.filter(lambda wish: any(wish.weights.values())), settings, counts)
def test_every_step_of_every_plan_can_be_followed(wish, settings, replicas):
    """Each commit is one that gitsync takes, has somebody for all traffic, and the last one is the new version's."""
    found = drawn(wish, settings=settings, replicas=replicas)
    serving = {name for name, each in wish.versions.items() if each.weight}
    for versions in moves(found):
        after = deploy.parse(deploy.written(Wish(versions=versions)), "f")
        assert after.versions == versions
        assert all(each.replicas for each in versions.values() if each.weight)
    last = moves(found)[-1]
    assert {name for name, each in last.items() if each.weight} == {V3}
    assert last[V3].replicas == replicas
    assert not serving & set(last)


@given(wishes.filter(lambda wish: any(wish.weights.values())), settings, counts)
def test_rolling_keeps_to_its_bounds(wish, settings, replicas):
    """Never more than `surge` above, and with surge alone never fewer than before serve."""
    settings = msgspec.structs.replace(
        settings, strategy="rolling", unavailable=0, surge=max(1, settings.surge)
    )
    serving = {name for name, each in wish.versions.items() if each.weight}
    before = sum(wish.versions[name].replicas for name in serving)
    for versions in moves(drawn(wish, settings=settings, replicas=before)):
        running = sum(each.replicas for name, each in versions.items() if name in serving | {V3})
        assert before <= running <= before + settings.surge
