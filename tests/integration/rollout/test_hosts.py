"""Rollouts over three hosts, each a network namespace with an agent of its own: no deploy loses a request, and whatever
becomes of a host in the middle of one, it ends all-old or all-new on those that are left.

`make soak` (MILKRUN_SOAK=1) lets dead hosts' sessions and checks run out by themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from integration.rollout.hosts import Host, Network
from rollout_farm import FILE, GOAT, Load, done_twice, goats_alone, said, shelf_of, under_load, until

from milkrun.cli.daemon import this_host
from milkrun.consul import Address, Registry, keys
from milkrun.errors import MilkrunError
from milkrun.model import AgentReport, UnitReport
from milkrun.rollout.receipt import Receipt
from milkrun.settings.rollout import Strategy

pytestmark = pytest.mark.needs("netns")

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
RATE = 100
REPLICAS = 3
DEPLOYS = (
    {"rolling": 20, "blue-green": 20, "canary": 20} if SOAK else {"rolling": 1, "blue-green": 2, "canary": 1}
)


class Country:
    """A farm on this host, and two more hosts that its agents' instances are spread over."""

    def __init__(self, path: Path) -> None:
        self.farm = goats_alone(path)
        self.network = Network()
        registry = f"{self.network.address}:{self.farm.registry}"
        settings = (path / "milkrun.toml").read_text()
        (path / "milkrun.toml").write_text(settings.replace(f"127.0.0.1:{self.farm.registry}", registry))
        (path / FILE).write_text(json.dumps({"version=0.0.1": {"weight": 100, "replicas": REPLICAS}}))
        self.farm.commit("A registry that other hosts reach, and goats for three of them")
        self.hosts: dict[str, Host] = {}
        self._url = f"http://{registry}"

    def up(self) -> None:
        self.farm.up()
        self.hosts = {name: self.network.host(name, self.farm) for name in ("barn", "meadow")}

    @property
    def address(self) -> Address:
        return Address(url=self._url, token=self.farm.folder.token_file.read_text().strip())

    @property
    def names(self) -> set[str]:
        return {this_host(), *self.hosts}

    def end(self) -> None:
        self.network.end()
        self.farm.end()


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Country]:
    made = Country(tmp_path_factory.mktemp("hosts") / "farm")
    try:
        made.up()
        yield made
    finally:
        made.end()


async def agents(registry: Registry) -> list[AgentReport]:
    pairs = await registry.entries(keys.AGENT_REPORTS)
    return [msgspec.json.decode(pair.data, type=AgentReport) for pair in pairs]


async def goats(registry: Registry) -> list[tuple[str, UnitReport]]:
    """The goats that run, each with its host; an agent says of one that it has just stopped that it is."""
    reports = sorted(await agents(registry), key=lambda report: report.host)
    found = [(report.host, unit) for report in reports for unit in report.units]
    return [(host, unit) for host, unit in found if unit.service == GOAT and unit.state != "stopped"]


async def all_agents(country: Country, registry: Registry) -> None:
    async def fact():
        return {report.host for report in await agents(registry)} == country.names

    await until(fact)


@pytest.mark.timeout(1_800 if SOAK else 300)
@pytest.mark.parametrize("strategy", list(DEPLOYS))
async def test_no_deploy_over_several_hosts_loses_a_request(country: Country, strategy: Strategy):
    used: Counter[str] = Counter()
    async with Registry(country.address) as registry:
        await all_agents(country, registry)
        async with under_load(country.farm, RATE) as load:
            for number in range(1, DEPLOYS[strategy] + 1):
                version = f"{list(DEPLOYS).index(strategy) + 1}.0.{number}"
                asked = ("deploy", "goat", version, "--strategy", strategy, "--json")
                receipt = (await said(country.farm, *asked))["receipt"]
                assert receipt["outcome"] == "done", receipt["reason"]
                found = await goats(registry)
                assert [(unit.version, unit.state) for _, unit in found] == [(version, "healthy")] * REPLICAS
                used.update(host for host, _ in found)
    print(f"\n{strategy} over {dict(used)}: {load.clean()}")
    assert done_twice(country.farm) == {}
    assert {*used} - {this_host()}, "nobody ran on another host"


@contextlib.asynccontextmanager
async def rollout_under_load(country: Country, version: str, strategy: Strategy) -> AsyncIterator[Flight]:
    """A rollout that was asked for, and the load on it."""
    async with Registry(country.address) as registry:
        await all_agents(country, registry)
        async with under_load(country.farm, RATE) as load:
            asked = ("deploy", "goat", version, "--strategy", strategy, "--no-wait", "--json")
            rollout = (await said(country.farm, *asked))["rollout"]
            yield Flight(country, registry, rollout, version, load)


class Flight(NamedTuple):
    """One rollout while it goes on."""

    country: Country
    registry: Registry
    rollout: str
    version: str
    load: Load

    async def at_a_part(self) -> None:
        """The new version has a part of the traffic."""

        async def fact():
            state = (await shelf_of(self.registry)).state
            mine = state and state.plan.id == self.rollout
            return bool(mine and state.served_at and state.wish.weights.get(self.version, 0) > 0)

        await until(fact)

    async def end(self) -> Receipt:
        """What became of it."""
        found: list[Receipt] = []

        async def fact():
            history = (await shelf_of(self.registry)).history
            found.extend(receipt for receipt in history if receipt.rollout == self.rollout)
            return bool(found)

        await until(fact, within_s=200)
        return found[0]

    async def all_run(self, version: str, hosts: set[str]) -> None:
        """All goats that git asks for run on these hosts, and they are of this version."""

        async def fact():
            found = await goats(self.registry)
            right = [(unit.version, unit.state) for _, unit in found] == [(version, "healthy")] * REPLICAS
            return right and {host for host, _ in found} <= hosts

        await until(fact)


async def given_up(registry: Registry, host: str) -> None:
    """What the registry finds out by itself within half a minute: the host's agent gives no sign of life."""
    if SOAK:
        return
    pair = await registry.get(keys.agent_report(host))
    assert pair
    assert pair.session
    report = msgspec.json.decode(pair.data, type=AgentReport)
    for unit in report.units:
        with contextlib.suppress(MilkrunError):  # not registered yet
            await registry.report(f"service:{unit.instance}", "critical", "TTL expired")
    await registry.destroy_session(pair.session)


async def host_with(registry: Registry, country: Country, version: str) -> Host:
    """A host of the two whose power can be cut, that runs a goat of this version."""
    found: list[str] = []

    async def fact():
        found.extend(host for host, unit in await goats(registry) if unit.version == version)
        return bool({*found} & {*country.hosts})

    await until(fact)
    return next(country.hosts[name] for name in found if name in country.hosts)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("strategy", list(DEPLOYS) if SOAK else ["canary"])
async def test_a_host_that_dies_in_the_middle_of_a_deploy_is_followed_by_another(
    country: Country, strategy: Strategy
):
    version = f"4.0.{list(DEPLOYS).index(strategy)}"
    async with rollout_under_load(country, version, strategy) as flight:
        await flight.at_a_part()
        host = await host_with(flight.registry, country, version)
        ran = host.runs()
        host.dies()
        await given_up(flight.registry, host.name)
        receipt = await flight.end()
        runs = version if receipt.outcome == "done" else receipt.old[0]
        await flight.all_run(runs, country.names - {host.name})
        host.boots()
        await all_agents(country, flight.registry)
        await flight.all_run(runs, country.names)
    told(strategy, f"{host.name} died with {', '.join(ran)}", receipt, flight.load)
    assert receipt.outcome in ("done", "taken-back"), receipt.reason
    assert done_twice(country.farm) == {}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("strategy", list(DEPLOYS) if SOAK else ["rolling"])
async def test_a_host_that_is_cut_off_in_the_middle_of_a_deploy_stops_what_others_run_by_then(
    country: Country, strategy: Strategy
):
    """Its agent and its instances live on behind the cut, and find out when it is whole again."""
    version = f"5.0.{list(DEPLOYS).index(strategy)}"
    async with rollout_under_load(country, version, strategy) as flight:
        await flight.at_a_part()
        host = await host_with(flight.registry, country, version)
        ran = host.runs()
        host.unplugged()
        await given_up(flight.registry, host.name)
        receipt = await flight.end()
        runs = version if receipt.outcome == "done" else receipt.old[0]
        await flight.all_run(runs, country.names - {host.name})
        assert host.runs() == ran
        host.plugged_in()

        async def agrees():
            here = {unit.instance for name, unit in await goats(flight.registry) if name == host.name}
            return {*host.runs()} == here

        await all_agents(country, flight.registry)
        await until(agrees)
        await flight.all_run(runs, country.names)
    told(strategy, f"{host.name} was cut off with {', '.join(ran)}", receipt, flight.load)
    assert receipt.outcome in ("done", "taken-back"), receipt.reason
    assert done_twice(country.farm) == {}


def told(strategy: Strategy, what: str, receipt: Receipt, load: Load) -> None:
    """What users met of it. A request that is under way to a host that loses its power is lost with it."""
    figures = load.figures
    assert figures
    print(
        f"\n{strategy}: {what}: {receipt.outcome}; {figures.failed} of {figures.sent:,} requests failed",
        end="",
    )
    print(f" {dict(figures.failures)}" if figures.failures else "")
    assert figures.duplicated == 0
