from __future__ import annotations

from msgspec.structs import replace

from milkrun.overview.facts import Facts
from milkrun.up.ready import Pending, pending


def judged(farm: Facts, **changes: object) -> Pending:
    assert farm.environment
    return pending(replace(farm, **changes), farm.environment.settings, since=0.0)


def test_nothing_is_waited_for_when_all_serve(farm: Facts):
    assert judged(farm) == Pending()


def test_what_was_reported_before_the_start_is_not_believed(farm: Facts):
    assert farm.environment
    settings = farm.environment.settings
    [agent], [router] = farm.agents, farm.routers
    looked = replace(farm, agents=[replace(agent, since=1000.5)])
    stands = replace(looked, routers=[replace(router, since=1000.5)])
    assert pending(farm, settings, since=1000.0).waits == ["the agent", "lb-goat"]
    assert pending(replace(farm, agents=[]), settings, since=1000.0).waits == ["the agent", "lb-goat"]
    assert pending(looked, settings, since=1000.0).waits == ["lb-goat"]
    assert pending(stands, settings, since=1000.0) == Pending()


def test_before_gitsync_nothing_else_can_be_said(farm: Facts):
    assert judged(farm, sync=None, instances={}).waits == ["gitsync to read the repository"]
    assert judged(farm, sync=replace(farm.sync, commit=None)).waits == ["gitsync to read the repository"]


def test_git_that_cannot_be_read_is_told_and_not_waited_for(farm: Facts):
    found = judged(farm, sync=replace(farm.sync, commit=None, trouble="no such branch"))
    assert (found.waits, found.stuck) == ([], ["gitsync: no such branch"])


def test_missing_instances_and_routers_are_waited_for(farm: Facts):
    found = judged(farm, instances={"goat": farm.instances["goat"][1:]}, routers=[])
    assert found.waits == ["goat 0.0.1 (1 of 2 healthy)", "lb-goat"]
    assert not found.over


def test_a_router_that_serves_an_older_commit_is_waited_for(farm: Facts):
    assert judged(farm, routers=[replace(farm.routers[0], generation=6)]).waits == [
        "lb-goat to serve 4c1266d"
    ]


def test_an_instance_that_does_not_start_is_told_with_its_log_and_not_waited_for(farm: Facts):
    [agent] = farm.agents
    stuck = replace(agent.units[0], state="backoff", reason="exited with status 1")
    found = judged(
        farm,
        agents=[replace(agent, units=[stuck, *agent.units[1:]])],
        instances={"goat": farm.instances["goat"][1:]},
    )
    assert found.over
    assert found.stuck == [f"{stuck.instance} does not start: exited with status 1; its log: {stuck.log}"]


def test_a_router_that_holds_is_told_and_not_waited_for(farm: Facts):
    found = judged(farm, routers=[replace(farm.routers[0], generation=6, held=["older weights"])])
    assert (found.waits, found.stuck) == ([], ["lb-goat holds: older weights"])
