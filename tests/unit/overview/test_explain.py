from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from milkrun.errors import NotFound
from milkrun.model import CommitId, Health, InstanceTraffic, Refusal, VersionWish
from milkrun.overview.explain import explain
from milkrun.overview.facts import Facts

ONE = "goat-0.0.1-shed-8101"


def verdict(facts: Facts, name: str = ONE) -> str:
    [one] = explain(facts, name).instances
    return one.verdict


def without_routing(facts: Facts, state: str = "") -> Facts:
    router = facts.routers[0]
    others = {name: seen for name, seen in router.instances.items() if name != ONE}
    mine = {ONE: InstanceTraffic(state=state)} if state else {}
    return replace(facts, routers=[replace(router, instances=others | mine)])


def test_the_chain_goes_from_git_to_the_router(farm: Facts):
    [one] = explain(farm, ONE).instances
    assert [(link.source, link.fact) for link in one.chain] == [
        ("git", "commit 4c1266d asks for version 0.0.1 with weight 80 (80.00 %) and 2 running"),
        ("slot", "goat/0.0.1/0, held by shed"),
        ("agent", "healthy on shed, pid 9101"),
        ("registry", "passing at 127.0.0.1:8101: GET /health: 200"),
        ("lb-goat-shed-8202", "serving; its version gets 80.00 % among 2 instances"),
    ]
    assert one.traffic is True
    assert one.verdict == "It gets traffic from lb-goat-shed-8202."


def test_a_service_is_explained_instance_by_instance(farm: Facts):
    assert [one.version for one in explain(farm, "goat").instances] == ["0.0.1", "0.0.1", "0.0.2"]


def test_weight_zero_is_why(farm: Facts):
    versions = {"0.0.1": VersionWish(weight=0, replicas=2), "0.0.2": VersionWish(weight=1, replicas=1)}
    facts = replace(farm, wishes={"goat": replace(farm.wishes["goat"], versions=versions)})
    router = facts.routers[0]
    shares = router.versions | {"0.0.1": replace(router.versions["0.0.1"], share=0)}
    facts = replace(facts, routers=[replace(router, versions=shares)])
    assert verdict(facts) == "It gets no traffic: version 0.0.1 has weight 0 in git."


def test_no_weight_among_weighted_ones_is_why(farm: Facts):
    versions = {"0.0.2": VersionWish(weight=1, replicas=1)}
    facts = without_routing(replace(farm, wishes={"goat": replace(farm.wishes["goat"], versions=versions)}))
    assert verdict(facts) == "It gets no traffic: version 0.0.1 has no weight in git, others have."


def test_a_failed_probe_is_why(with_instance: Callable[..., Facts]):
    facts = without_routing(with_instance(8101, health=Health.CRITICAL, reason="no answer in 2 s"))
    assert verdict(facts) == "It gets no traffic: the registry says critical (no answer in 2 s)."


def test_a_drain_is_why(with_instance: Callable[..., Facts]):
    facts = without_routing(
        with_instance(8101, health=Health.MAINTENANCE, reason="git asks for less"), "drained"
    )
    assert verdict(facts) == "It gets no traffic: it is being drained (git asks for less)."


def test_a_crash_loop_is_why(farm: Facts):
    [agent] = farm.agents
    stuck = replace(agent.units[0], state="backoff", reason="process exited with status 1")
    facts = replace(
        farm,
        agents=[replace(agent, units=[stuck, *agent.units[1:]])],
        instances={"goat": farm.instances["goat"][1:]},
    )
    assert "it does not stay up (process exited with status 1)" in verdict(without_routing(facts))


def test_no_router_is_why(farm: Facts):
    found = explain(replace(farm, routers=[]), ONE)
    assert found.instances[0].verdict == "It gets no traffic: no router reports for goat."
    assert found.notes == ["no router reports for goat: nobody is known to send it requests"]


def test_a_holding_router_is_why(farm: Facts):
    held = without_routing(farm)
    held = replace(held, routers=[replace(held.routers[0], held=["the weights are older than before"])])
    assert verdict(held) == "It gets no traffic: the router holds (the weights are older than before)."


def test_a_refused_file_is_noted(farm: Facts):
    assert farm.sync
    refusal = Refusal(file="deploy/goat.json", line=2, reason="not JSON", commit=CommitId("ab"))
    other = replace(refusal, file="deploy/cow.json")
    found = explain(replace(farm, sync=replace(farm.sync, refused=[refusal, other])), "goat")
    assert found.notes == ["git: deploy/goat.json:2: not JSON (refused; what was there before stays)"]


def test_an_unknown_name_gets_the_near_ones(farm: Facts):
    with pytest.raises(NotFound) as caught:
        explain(farm, "gaot")
    assert caught.value.remedy == "did you mean goat?"
    with pytest.raises(NotFound) as caught:
        explain(farm, "zzzz")
    assert caught.value.remedy.startswith("known are: goat, goat-0.0.1-shed-8101")


def with_unit(facts: Facts, **changes: object) -> Facts:
    """The farm whose first goat is not in the catalog, and whose unit is like this."""
    [agent] = facts.agents
    unit = replace(agent.units[0], **changes)
    left = {"goat": facts.instances["goat"][1:]}
    agents = [replace(agent, units=[unit, *agent.units[1:]])]
    return without_routing(replace(facts, agents=agents, instances=left))


def test_what_the_probe_says_of_a_starting_instance_is_why(farm: Facts):
    starting = with_unit(farm, state="starting", reason="GET /health: 404")
    assert verdict(starting) == "It gets no traffic: it is not healthy yet (GET /health: 404)."


def test_a_program_that_is_not_there_is_why_and_what_to_do_is_said(farm: Facts):
    broken = with_unit(
        farm,
        state="backoff",
        reason="cannot start cow: there is no such program here",
        remedy="install it",
        pid=0,
    )
    [one] = explain(broken, ONE).instances
    assert one.verdict.endswith("(cannot start cow: there is no such program here); install it.")
    assert "pid" not in one.chain[2].fact


def test_what_no_commit_speaks_of_is_said_so(farm: Facts):
    [one] = explain(replace(farm, wishes={}), ONE).instances
    assert one.chain[0].fact == "no commit speaks of goat"
