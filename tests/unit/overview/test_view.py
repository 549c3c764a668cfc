from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from milkrun.model import Figures, Health, Instance, VersionName, VersionWish, Wish
from milkrun.overview.facts import Facts
from milkrun.overview.view import ServiceView, View, view, wanted_shares


def seen(facts: Facts) -> View:
    return view(facts, registry="http://127.0.0.1:8500", now=1001.0)


def goats(facts: Facts) -> ServiceView:
    [service] = seen(facts).services
    return service


def test_observed_shares_are_of_all_routers_together(farm: Facts):
    first = farm.routers[0]
    versions = {name: replace(one, window=Figures(requests=5000)) for name, one in first.versions.items()}
    second = replace(first, router="lb-goat-barn-8202", versions=versions)
    both = goats(replace(farm, routers=[first, second]))
    assert both.requests == 20_000
    assert [one.observed for one in both.versions] == [12_993 / 20_000, 7_007 / 20_000]
    assert [one.served for one in both.versions] == [0.8, 0.2]


def test_nothing_is_observed_before_the_first_request(farm: Facts):
    quiet = {name: replace(one, window=Figures()) for name, one in farm.routers[0].versions.items()}
    service = goats(replace(farm, routers=[replace(farm.routers[0], versions=quiet)]))
    assert [one.observed for one in service.versions] == [None, None]


def test_an_instance_in_maintenance_does_not_count_as_running(with_instance: Callable[..., Facts]):
    first = goats(with_instance(8101, health=Health.MAINTENANCE)).versions[0]
    assert (first.running, first.healthy) == (1, 1)


def test_a_unit_that_is_not_registered_yet_is_shown_all_the_same(farm: Facts):
    [agent] = farm.agents
    units = [replace(agent.units[0], state="starting"), *agent.units[1:]]
    facts = replace(
        farm, agents=[replace(agent, units=units)], instances={"goat": farm.instances["goat"][1:]}
    )
    first = goats(facts).instances[0]
    assert (first.id, first.health, first.log) == (units[0].instance, "starting", units[0].log)


def test_a_version_that_git_forgot_but_still_runs_is_shown_without_a_weight(farm: Facts):
    wish = replace(farm.wishes["goat"], versions={"0.0.2": VersionWish(weight=1, replicas=1)})
    old, new = goats(replace(farm, wishes={"goat": wish})).versions
    assert (old.version, old.weight, old.wanted, old.replicas) == ("0.0.1", None, 0.0, None)
    assert new.wanted == 1.0


def test_a_router_is_behind_when_git_is_ahead(farm: Facts):
    assert goats(farm).routers[0].behind is False
    assert goats(replace(farm, routers=[replace(farm.routers[0], generation=6)])).routers[0].behind is True


def test_only_one_service_leaves_out_the_problems_of_the_others(farm: Facts):
    ill = Instance(
        id="cow-1-shed-1", service="cow", version="1", address="127.0.0.1", port=1, health=Health.CRITICAL
    )
    facts = replace(farm, instances=farm.instances | {"cow": [ill]})
    assert seen(facts).healthy is False
    alone = view(facts, registry="", now=0.0, only="goat")
    assert [one.service for one in alone.services] == ["goat"]
    assert alone.healthy is True


def test_the_view_is_one_json_object_and_comes_back_the_same(farm: Facts):
    shown = seen(farm)
    assert shown.schema_version == 1
    assert msgspec.json.decode(msgspec.json.encode(shown), type=View) == shown


def test_an_empty_registry_gives_a_view_with_problems_and_no_error():
    shown = seen(Facts())
    assert shown.services == []
    assert shown.healthy is False


def test_all_zero_weights_want_nothing():
    assert wanted_shares(Wish(versions={"1": VersionWish(weight=0)})) == {}


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e6), min_size=1))
def test_wanted_shares_sum_to_one_or_there_are_none(weights: dict[str, float]):
    wish = Wish(versions={VersionName(name): VersionWish(weight=weight) for name, weight in weights.items()})
    shares = wanted_shares(wish)
    assert shares == {} if not sum(weights.values()) else sum(shares.values()) == pytest.approx(1)


def test_a_service_that_git_has_ended_is_shown_as_long_as_something_of_it_is_left(farm: Facts):
    ended = replace(farm, wishes={"goat": replace(farm.wishes["goat"], versions={})})
    assert [one.service for one in seen(ended).services] == ["goat"]
    nothing = {"instances": {"goat": []}, "agents": [], "routers": [], "settings": {}}
    for left in nothing:
        gone = {name: value for name, value in nothing.items() if name != left}
        assert [one.service for one in seen(replace(ended, **gone)).services] == ["goat"], left
    assert seen(replace(ended, **nothing)).services == []
