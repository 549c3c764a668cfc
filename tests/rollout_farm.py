"""Goats that roll out quickly in a real farm under load, and what the load, git and the registry say of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import msgspec
from farm import Farm

from milkrun.consul import Registry, keys
from milkrun.errors import MilkrunError
from milkrun.load import generator
from milkrun.load.figures import Figures
from milkrun.model import AgentReport, RouterReport, ServiceName, UnitReport, Wish, version_name
from milkrun.rollout.drawing import drawn
from milkrun.rollout.git import Git
from milkrun.rollout.plan import Plan
from milkrun.rollout.receipt import EPOCH
from milkrun.rollout.steps import Move
from milkrun.rollout.store import Shelf, shelves
from milkrun.settings import deploy
from milkrun.settings.rollout import Strategy

GOAT = ServiceName("goat")
FILE = "deploy/goat.json"
STRATEGIES: tuple[Strategy, ...] = ("rolling", "blue-green", "canary")
REPLICAS = 2
WITHIN_S = 90.0
TICK_S = 0.1
SETTLED_S = 0.1
"""What was on its way when the shares changed has been answered by then."""

SIGMAS = 5.0
"""So far from what is expected an exact split comes once in 1.7 million times."""

SETTINGS = """command = ["{{python}}", "apps/goat.py"]

[env]
DAIRY_LEDGER = "{ledger}"

[health]
interval_s = 0.2

[rollout]
steps = ["smoke", "weight 20%", "analyse 1s", "weight 60%", "pause 0.5s"]
bake_s = 0.5

[rollout.smoke]
path = "/milk"
contains = '"goat": {{'

[rollout.analysis]
failures_matter_from = 50.0
latency_worse_by = 900.0
latency_matters_from = 1000.0
min_requests = 20
"""


class Tick(NamedTuple):
    """How many answers each version had given at a moment, in seconds since 1970."""

    at: float
    answered: dict[str, int]


class Load:
    """`milkrun load`'s own generator against the goats while something happens. `figures` are there at its end."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.figures: Figures | None = None

    def tick(self, figures: Figures) -> None:
        answered = {share.version: share.answered for share in figures.shares if share.service == GOAT}
        self.ticks.append(Tick(time.time(), answered))

    def between(self, start: float, end: float) -> Counter[str]:
        """Who answered how often within these moments."""
        within = [tick for tick in self.ticks if start <= tick.at <= end]
        if not within:
            return Counter()
        return Counter(within[-1].answered) - Counter(within[0].answered)

    def clean(self) -> str:
        """Nothing failed and nothing was answered twice; returned is what there was."""
        figures = self.figures
        assert figures
        assert figures.failures == {}
        assert figures.duplicated == 0
        assert figures.answered > 0
        assert figures.answered + figures.in_flight == figures.sent
        return (
            f"{figures.sent:,} requests in {figures.elapsed_s:.0f} s: {figures.failed} failed, "
            f"{figures.duplicated} duplicated, p99 {figures.latency.p99_ms:.0f} ms"
        )


@contextlib.asynccontextmanager
async def under_load(farm: Farm, rate: float) -> AsyncIterator[Load]:
    """Open loop, every second request on a connection of its own, until the body has ended."""
    load = Load()

    async def run() -> None:
        with patch.object(generator, "TICK_S", TICK_S):
            load.figures = await generator.run(
                f"http://127.0.0.1:{farm.goats}/milk",
                rate=rate,
                duration_s=36_000,
                timeout_s=20,
                on_tick=load.tick,
            )

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run())
        while not load.ticks:
            await asyncio.sleep(TICK_S)
        try:
            yield load
        finally:
            task.cancel()


class Seen(NamedTuple):
    """Of so many answers so many were the new version's, which was to have this share."""

    share: float
    new: int
    all: int

    def and_then(self, more: Seen) -> Seen:
        return Seen(self.share, self.new + more.new, self.all + more.all)

    @property
    def right(self) -> bool:
        """Not one answer by who has no share; else within what chance does. A step that was over at once saw none."""
        if self.share in (0.0, 1.0):
            return self.new == self.share * self.all
        expected, sigma = self.share * self.all, math.sqrt(self.all * self.share * (1 - self.share))
        return abs(self.new - expected) <= SIGMAS * sigma


def ledger_of(farm: Farm) -> Path:
    return farm.path / ".milkrun" / "ledger"


def settle(farm: Farm, settings: str = SETTINGS) -> None:
    """From now on goats roll out as these settings say, and write down what they answer."""
    ledger_of(farm).mkdir(parents=True, exist_ok=True)
    (farm.path / "services" / "goat.toml").write_text(settings.format(ledger=ledger_of(farm)))
    farm.commit("How goats roll out")


def goats_alone(path: Path, settings: str = SETTINGS) -> Farm:
    """A farm without farmers, whose goats are all of one version."""
    farm = Farm(path)
    farm.git("rm", "--quiet", "services/farmer.toml", "deploy/farmer.json")
    text = (farm.path / "milkrun.toml").read_text()
    (farm.path / "milkrun.toml").write_text(text[: text.index("# A load balancer before the farmers")])
    (farm.path / FILE).write_text(json.dumps({"version=0.0.1": {"weight": 100, "replicas": REPLICAS}}))
    settle(farm, settings)
    return farm


async def plan_of(farm: Farm, version: str, strategy: Strategy) -> Plan:
    """What `milkrun rollout plan` shows: `deploy --digest` takes it or refuses it."""
    git = await Git.open(farm.path, "main")
    try:
        found, _ = await drawn(git, "", GOAT, version_name(version), strategy=strategy)
    finally:
        await git.close()
    return found


async def said(farm: Farm, *arguments: str) -> dict:
    """What a command that ends well prints as JSON."""
    done = await asyncio.to_thread(farm.milkrun, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def shelf_of(registry: Registry, service: ServiceName = GOAT) -> Shelf:
    return shelves(await registry.entries(f"{keys.ROLLOUTS}{service}/")).get(service, Shelf())


async def reports_of(registry: Registry) -> list[RouterReport]:
    pairs = await registry.entries(f"{keys.ROUTER_REPORTS}{GOAT}/")
    return [msgspec.json.decode(pair.data, type=RouterReport) for pair in pairs]


async def units_of(registry: Registry) -> list[UnitReport]:
    pairs = await registry.entries(keys.AGENT_REPORTS)
    units = [unit for pair in pairs for unit in msgspec.json.decode(pair.data, type=AgentReport).units]
    return [unit for unit in units if unit.service == GOAT]


async def until(fact, within_s: float = WITHIN_S) -> None:
    """The fact comes true; the registry may be away meanwhile."""
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(MilkrunError):
                if await fact():
                    return
            await asyncio.sleep(0.05)


def commits_since(farm: Farm, before: str) -> list[str]:
    return farm.git("rev-list", "--reverse", f"{before}..HEAD").split()


def wish_at(farm: Farm, commit: str) -> Wish:
    return deploy.parse(farm.git("show", f"{commit}:{FILE}").encode(), FILE)


def trailers(farm: Farm, commit: str) -> dict[str, str]:
    text = farm.git("show", "--no-patch", "--format=%(trailers:only,unfold)", commit)
    return dict(line.split(": ", 1) for line in text.splitlines() if line)


def as_planned(farm: Farm, drawn: Plan, before: str, rollout: str) -> None:
    """Git has a commit for each move of the plan and nothing else, each with its trailers."""
    moves = [(number, step) for number, step in enumerate(drawn.steps, 1) if isinstance(step, Move)]
    commits = commits_since(farm, before)
    assert [wish_at(farm, commit).versions for commit in commits] == [step.versions for _, step in moves]
    for commit, (number, step) in zip(commits, moves, strict=True):
        found = trailers(farm, commit)
        assert found["Milkrun-Rollout"] == rollout
        assert found["Milkrun-Step"] == f"{number}/{len(drawn.steps)} {step.name}"
        assert int(found[EPOCH]) >= 1
        assert found["Milkrun-Verdict"] in ("none", "pass", "inconclusive")
    assert farm.git("diff", "--stat", f"{before}..HEAD", "--", ".", f":!{FILE}") == ""
    assert farm.git("status", "--porcelain") == ""


def shares_seen(load: Load, shelf: Shelf, applied: Mapping[str, float]) -> Iterator[tuple[str, Seen]]:
    """For each move: who answered from when its commit was applied until the next one was announced."""
    assert shelf.state
    drawn = shelf.state.plan
    moves = [step for step in drawn.steps if isinstance(step, Move)]
    announced = [entry.at for entry in shelf.journal if entry.kind == "intent" and entry.said == "commit"]
    ends = [*announced[1:], shelf.state.ended]
    for move, commit, end in zip(moves, shelf.state.commits, ends, strict=True):
        weights = {name: each.weight or 0.0 for name, each in move.versions.items()}
        share = weights[drawn.version] / sum(weights.values())
        found = load.between(applied.get(commit, math.inf) + SETTLED_S, end)
        yield move.name, Seen(share, found[drawn.version], found.total())


@contextlib.asynccontextmanager
async def applications(registry: Registry) -> AsyncIterator[dict[str, float]]:
    """When the router served each commit, in seconds since 1970; one that it passed over at once may lack."""
    found: dict[str, float] = {}

    async def watch() -> None:
        while True:
            with contextlib.suppress(MilkrunError):
                for report in await reports_of(registry):
                    if report.commit:
                        found.setdefault(report.commit, report.applied_at)
            await asyncio.sleep(TICK_S)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        yield found
        watching.cancel()


def done_twice(farm: Farm) -> dict[str, set[str]]:
    """Requests that more than one goat gave milk for."""
    seen: dict[str, set[str]] = {}
    for file in ledger_of(farm).glob("*.log"):
        for request in file.read_text().split():
            seen.setdefault(request, set()).add(file.stem)
    return {request: names for request, names in seen.items() if len(names) > 1}
