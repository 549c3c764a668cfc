"""Deploys one after the other through real HAProxy under load: none loses a request, the shares are right at each
step, and git has what the plan said. `make soak` (MILKRUN_SOAK=1) does 300 of each strategy.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from farm import Farm
from rollout_farm import (
    REPLICAS,
    STRATEGIES,
    Seen,
    applications,
    as_planned,
    done_twice,
    goats_alone,
    plan_of,
    said,
    shares_seen,
    shelf_of,
    under_load,
)

from milkrun.consul import Registry
from milkrun.settings.rollout import Strategy

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
DEPLOYS = {"rolling": 7, "blue-green": 8, "canary": 5}
RATE = 150


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for all: each version takes over from the one before, whatever brought that."""
    made = goats_alone(tmp_path_factory.mktemp("deploys") / "farm")
    try:
        made.up()
        yield made
    finally:
        made.end()


@pytest.mark.timeout(36_000 if SOAK else 300)
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_no_deploy_loses_a_request(farm: Farm, strategy: Strategy):
    deploys = 300 if SOAK else DEPLOYS[strategy]
    seen: dict[str, Seen] = {}
    async with (
        Registry(farm.address) as registry,
        applications(registry) as applied,
        under_load(farm, RATE) as load,
    ):
        for number in range(1, deploys + 1):
            version = f"{STRATEGIES.index(strategy) + 1}.0.{number}"
            before = farm.git("rev-parse", "HEAD")
            plan = await plan_of(farm, version, strategy)
            asked = ("deploy", "goat", version, "--strategy", strategy, "--digest", plan.digest, "--json")
            receipt = (await said(farm, *asked))["receipt"]

            assert (receipt["outcome"], receipt["version"]) == ("done", version)
            as_planned(farm, plan, before, receipt["rollout"])
            await asyncio.to_thread(only_these_run, farm, version)
            for step, found in shares_seen(load, await shelf_of(registry), applied):
                name = step.replace(version, "the new one")
                seen[name] = seen[name].and_then(found) if name in seen else found
            assert [receipt["requests"][name]["failures"] for name in receipt["requests"]] == [0, 0]

    told = load.clean()
    assert done_twice(farm) == {}
    for step, found in seen.items():
        print(f"\n  {step}: {found.new:,} of {found.all:,} answers, wanted {100 * found.share:g} %", end="")
    assert {step: found for step, found in seen.items() if not found.right} == {}
    split = any(0 < found.share < 1 and found.all for found in seen.values())
    assert split == (strategy != "blue-green")
    print(f"\n{deploys} deploys, {strategy}: {told}")
    print(f"at 95 % fewer than {300 / deploys:.3g} % of such deploys lose a request (3/N)")


def only_these_run(farm: Farm, version: str) -> None:
    """Every goat that runs is of this version."""
    goats = [name for name in farm.processes() if name.startswith("goat-")]
    assert len(goats) == REPLICAS
    assert all(name.startswith(f"goat-{version}-") for name in goats)
