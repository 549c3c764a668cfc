"""Deploys of containers on a real Docker engine, through real HAProxy under load: none loses a request, nothing is done
twice, and the shares are right at each step. `make soak` (MILKRUN_SOAK=1) does 300 of each strategy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from integration.docker.engine import Docker
from integration.docker.test_farm import Barn
from rollout_farm import (
    REPLICAS,
    SETTINGS,
    STRATEGIES,
    Seen,
    applications,
    as_planned,
    done_twice,
    ledger_of,
    plan_of,
    said,
    shares_seen,
    shelf_of,
    under_load,
)

from milkrun.consul import Registry
from milkrun.settings.rollout import Strategy

pytestmark = pytest.mark.needs("docker")

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
DEPLOYS = {"rolling": 2, "blue-green": 2, "canary": 1}
RATE = 100
CONTAINER = """[docker]
image = "goat:{{version}}"
port = 8080
volumes = ["{ledger}:/ledger:rw"]

"""


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    made = Docker()
    try:
        made.start()
        made.make("goat:0.0.1")
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def barn(tmp_path_factory: pytest.TempPathFactory, docker: Docker) -> Iterator[Barn]:
    """One barn for all: each version takes over from the one before, whatever brought that."""
    made = Barn(tmp_path_factory.mktemp("containers") / "barn")
    made.environment["DOCKER_HOST"] = docker.host
    ledger_of(made).mkdir(parents=True)
    settings = CONTAINER + SETTINGS[SETTINGS.index("[health]") :].replace('"/milk"', '"/cgi-bin/milk"')
    (made.path / "services" / "goat.toml").write_text(settings.format(ledger=ledger_of(made)))
    made.commit("Goats that milk and write it down")
    try:
        made.up()
        yield made
    finally:
        made.end()


@pytest.mark.timeout(36_000 if SOAK else 300)
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_no_deploy_of_containers_loses_a_request(barn: Barn, docker: Docker, strategy: Strategy):
    deploys = 300 if SOAK else DEPLOYS[strategy]
    seen: dict[str, Seen] = {}
    milk = SimpleNamespace(goats=f"{barn.goats}/cgi-bin")
    async with (
        Registry(barn.address) as registry,
        applications(registry) as applied,
        under_load(milk, RATE) as load,
    ):
        for number in range(1, deploys + 1):
            version = f"{STRATEGIES.index(strategy) + 1}.0.{number}"
            docker.docker("tag", "goat:0.0.1", f"goat:{version}")
            before = barn.git("rev-parse", "HEAD")
            plan = await plan_of(barn, version, strategy)
            asked = ("deploy", "goat", version, "--strategy", strategy, "--digest", plan.digest, "--json")
            receipt = (await said(barn, *asked))["receipt"]

            assert (receipt["outcome"], receipt["version"]) == ("done", version), receipt["reason"]
            as_planned(barn, plan, before, receipt["rollout"])
            names = docker.names()
            assert len(names) == REPLICAS
            assert all(name.startswith(f"goat-{version}-") for name in names)
            for step, found in shares_seen(load, await shelf_of(registry), applied):
                name = step.replace(version, "the new one")
                seen[name] = seen[name].and_then(found) if name in seen else found

    told = load.clean()
    assert done_twice(barn) == {}
    assert load.figures
    assert len(milked(barn)) >= load.figures.answered
    assert {step: found for step, found in seen.items() if not found.right} == {}
    assert any(found.all for found in seen.values())
    print(f"\n{deploys} deploys of containers, {strategy}: {told}")
    bound = 100 * (1 - 0.05 ** (1 / deploys))
    print(f"at 95 % fewer than {bound:.3g} % of such deploys lose a request")


def milked(barn: Barn) -> set[str]:
    """The requests that some goat wrote down."""
    return {request for file in ledger_of(barn).glob("*.log") for request in file.read_text().split()}
