from __future__ import annotations

import pytest
from msgspec.structs import replace

from milkrun.model import CommitId, Refusal, RouterReport, SyncReport
from milkrun.overview.facts import Facts
from milkrun.overview.served import HELD_S, Outcome, Standing, standing


@pytest.fixture
def router(farm: Facts) -> RouterReport:
    return farm.routers[0]


@pytest.fixture
def sync(farm: Facts) -> SyncReport:
    assert farm.sync
    return farm.sync


def judged(
    routers: list[RouterReport], sync: SyncReport | None, generation: int, settled_s: float = 60.0
) -> Standing:
    return standing(routers, sync, file="deploy/goat.json", generation=generation, settled_s=settled_s)


def test_served_when_the_only_router_is_at_the_commit_or_past_it(router: RouterReport, sync: SyncReport):
    assert judged([router], sync, 7).outcome is Outcome.SERVED
    assert judged([router], sync, 6).outcome is Outcome.SERVED


def test_one_router_behind_is_waited_for_by_name(router: RouterReport, sync: SyncReport):
    late = replace(router, router="lb-goat-barn-8202", generation=6)
    found = judged([router, late], sync, 7)
    assert found.outcome is Outcome.WAITING
    assert found.waits_for == ["lb-goat-barn-8202, which serves generation 6"]


def test_nobody_serving_is_not_served(sync: SyncReport):
    found = judged([], sync, 7)
    assert (found.outcome, found.waits_for) == (Outcome.WAITING, ["a router: none reports"])


def test_gitsync_is_waited_for_first(router: RouterReport, sync: SyncReport):
    assert judged([router], sync, 8).waits_for == ["gitsync, which is at generation 7"]
    troubled = replace(sync, trouble="cannot read git")
    assert judged([router], troubled, 8).waits_for == ["gitsync, which is at generation 7 (cannot read git)"]
    assert judged([router], None, 8).waits_for == ["gitsync, which does not report"]


def test_a_refused_file_is_final_with_its_line(router: RouterReport, sync: SyncReport):
    refusal = Refusal(file="deploy/goat.json", line=4, reason="NaN", commit=CommitId("ab"))
    refused = replace(sync, refused=[refusal])
    found = judged([router], refused, 7)
    assert (found.outcome, found.reason) == (Outcome.REFUSED, "deploy/goat.json:4: NaN")


def test_a_refusal_from_before_the_commit_or_of_another_file_is_not_ours(
    router: RouterReport, sync: SyncReport
):
    refusal = Refusal(file="deploy/goat.json", line=4, reason="NaN", commit=CommitId("ab"))
    assert judged([router], replace(sync, refused=[refusal]), 8).outcome is Outcome.WAITING
    other = replace(refusal, file="deploy/cow.json")
    assert judged([router], replace(sync, refused=[other]), 7).outcome is Outcome.SERVED


def test_a_router_that_holds_is_final_once_it_has_had_time_to_follow(router: RouterReport, sync: SyncReport):
    held = replace(router, held=["no instance is healthy"], generation=6)
    assert judged([held], sync, 7, settled_s=HELD_S / 2).outcome is Outcome.WAITING
    found = judged([held], sync, 7, settled_s=HELD_S)
    assert found.outcome is Outcome.HELD
    assert found.reason == "lb-goat-shed-8202 holds: no instance is healthy"
