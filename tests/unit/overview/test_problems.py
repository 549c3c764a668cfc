from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from milkrun.model import CommitId, CommitMark, Health, Refusal, VersionWish
from milkrun.overview.facts import Facts
from milkrun.overview.problems import problems

NOW = 1001.0


def told(facts: Facts, now: float = NOW) -> list[str]:
    return [problem.what for problem in problems(facts, now=now)]


def test_a_farm_in_order_has_no_problem(farm: Facts):
    assert told(farm) == []


def test_no_gitsync_is_a_problem(farm: Facts):
    assert told(replace(farm, sync=None)) == ["gitsync does not report: new commits are not followed"]


def test_a_refused_file_is_named_with_its_line_and_what_stays(farm: Facts):
    assert farm.sync
    refusal = Refusal(file="deploy/goat.json", line=3, reason="weight is negative", commit=CommitId("ab"))
    [problem] = problems(replace(farm, sync=replace(farm.sync, refused=[refusal])), now=NOW)
    assert problem.what == "deploy/goat.json:3: weight is negative"
    assert problem.service == "goat"
    assert problem.remedy == "mend deploy/goat.json and commit; until then the registry keeps what it had"


def test_a_missing_router_is_a_problem(farm: Facts):
    [line] = told(replace(farm, routers=[]))
    assert line.startswith("router lb-goat does not report")


def test_another_router_with_a_longer_name_does_not_stand_in_for_it(farm: Facts):
    other = replace(farm.routers[0], router="lb-goat-b-shed-8302", listen="127.0.0.1:8302")
    assert any("router lb-goat does not report" in line for line in told(replace(farm, routers=[other])))


@pytest.mark.parametrize("field", ["held", "alarms", "drift"])
def test_what_a_router_says_is_told(farm: Facts, field: str):
    router = replace(farm.routers[0], **{field: ["all weights are zero"]})
    [line] = told(replace(farm, routers=[router]))
    assert "all weights are zero" in line


def test_what_a_router_says_of_itself_for_each_of_its_services_is_told_once(farm: Facts):
    said = "certificate 'a.pem' expires within 7 days"
    goat = replace(farm.routers[0], alarms=[said, "instance 'x' is left out"])
    both = [goat, replace(goat, service="farmer", alarms=[said])]

    found = problems(replace(farm, routers=both), now=NOW)

    assert [(one.service, one.what.partition(": ")[2]) for one in found if "lb-goat" in one.what] == [
        ("", said),
        ("goat", "instance 'x' is left out"),
    ]


def behind(farm: Facts) -> Facts:
    wish = replace(farm.wishes["goat"], mark=CommitMark(commit=CommitId("ff"), generation=8))
    return replace(farm, wishes={"goat": wish})


def test_a_router_may_be_behind_for_a_moment_but_not_for_long(farm: Facts):
    assert told(behind(farm), now=1009.0) == []
    [line] = told(behind(farm), now=1011.0)
    assert "still serves generation 7, git is at 8" in line


def test_a_critical_instance_is_a_problem_and_one_in_maintenance_is_not(with_instance: Callable[..., Facts]):
    [line] = told(with_instance(8101, health=Health.CRITICAL, reason="connection refused\nmore"))
    assert line == "goat-0.0.1-shed-8101 is critical: connection refused"


def test_too_few_instances_are_told_once(farm: Facts):
    few = replace(farm, instances={"goat": farm.instances["goat"][1:]})
    assert told(few) == ["goat 0.0.1: 1 of 2 instances are healthy"]


def test_a_unit_that_does_not_start_explains_the_missing_replica(farm: Facts):
    [agent] = farm.agents
    stuck = replace(agent.units[0], state="backoff", reason="process exited with status 1", restarts=4)
    facts = replace(
        farm,
        instances={"goat": farm.instances["goat"][1:]},
        agents=[replace(agent, units=[stuck, *agent.units[1:]])],
    )
    [problem] = problems(facts, now=NOW)
    assert problem.what == (
        "goat-0.0.1-shed-8101 on shed is in state backoff after 4 restarts: process exited with status 1"
    )
    assert problem.remedy == "milkrun logs goat-0.0.1-shed-8101"


def test_no_agent_is_a_problem_only_when_git_asks_for_instances(farm: Facts):
    assert any("no agent reports" in line for line in told(replace(farm, agents=[])))
    wish = replace(farm.wishes["goat"], versions={"0.0.1": VersionWish(weight=1)})
    assert told(replace(farm, agents=[], wishes={"goat": wish})) == []


def test_a_key_of_another_shape_is_named(farm: Facts):
    assert any("milkrun/reports/x" in line for line in told(replace(farm, unreadable=["milkrun/reports/x"])))
