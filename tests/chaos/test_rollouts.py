"""Rollouts under load while engines and parts are killed: each comes to its end, and nobody notices.

CI takes a sample of the records and parts; `make soak` (MILKRUN_SOAK=1) takes all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from farm import Farm
from rollout_farm import (
    EPOCH,
    FILE,
    REPLICAS,
    STRATEGIES,
    Load,
    commits_since,
    done_twice,
    goats_alone,
    reports_of,
    shelf_of,
    trailers,
    under_load,
    units_of,
    until,
    wish_at,
)

from milkrun.consul import Registry, keys
from milkrun.errors import MilkrunError
from milkrun.rollout.receipt import Receipt
from milkrun.settings.rollout import Strategy
from milkrun.up.record import load as record

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
PROGRAM = Path(__file__).parent / "mortal_engine.py"
RATE = 100
WHOLE = 10_000
"""Slots: a router says shares in hundredths of a percent."""

SAMPLE = 1 if SOAK else 5
"""Each so many-th record."""

VERDICTS = ("none", "pass", "inconclusive", "fail")


class Scene:
    """A farm whose engines are the test's, and what its router said meanwhile."""

    def __init__(self, farm: Farm, registry: Registry) -> None:
        self.farm, self.registry = farm, registry
        self.engines: list[subprocess.Popen[str]] = []
        self.before = farm.git("rev-parse", "HEAD")
        self.told: set[tuple[str, tuple[tuple[str, int], ...]]] = set()

    def engine(self, host: str = "one", **fate: object) -> subprocess.Popen[str]:
        """An engine that meets this fate; none: it lives."""
        file = self.farm.path.parent / f"{host}.json"
        told = {"signal": signal.SIGKILL, "when": "after", "each": 1, "first": WHOLE, "only": ""} | fate
        file.write_text(json.dumps(told))
        state = self.farm.path / ".milkrun" / f"engine-{host}"
        process = started(self.farm, str(file), "rollouts", "--host", host, "--state", str(state))
        self.engines.append(process)
        return process

    async def ask(self, version: str, *options: str) -> str:
        """The rollout's id: it is asked for."""
        asked = ("deploy", "goat", version, "--no-wait", "--json", *options)
        done = await asyncio.to_thread(self.farm.milkrun, *asked)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["rollout"]

    async def ended(self, rollout: str) -> Receipt | None:
        history = (await shelf_of(self.registry)).history
        return next((receipt for receipt in history if receipt.rollout == rollout), None)

    async def acts(self, host: str) -> None:
        """This engine has the lock."""

        async def fact():
            pair = await self.registry.get(keys.ENGINE_LOCK)
            return bool(pair and pair.session and pair.data == host.encode())

        await until(fact)

    async def watch(self) -> None:
        """Never returns: notes which shares the router says that it serves, and of which commit."""
        while True:
            with contextlib.suppress(MilkrunError):
                for report in await reports_of(self.registry):
                    shares = {name: seen.share for name, seen in report.versions.items() if seen.share}
                    self.told.add((report.commit or "", tuple(sorted(shares.items()))))
            await asyncio.sleep(0.05)

    def known_shares(self) -> None:
        """Whatever the router served was what the deploy file said in the commit that it named."""
        known = set(commits_since(self.farm, self.before)) | {self.before}
        assert self.told
        for commit, shares in self.told:
            assert commit in known
            if commit == self.before and not shares:
                continue  # the router's first words, when it knew of nobody yet
            weights = {name: each.weight or 0.0 for name, each in wish_at(self.farm, commit).versions.items()}
            whole = sum(weights.values())
            wanted = {name: round(WHOLE * weight / whole) for name, weight in weights.items() if weight}
            assert dict(shares) == wanted, commit

    async def runs(self, version: str) -> None:
        """All goats are of this version, and the file says so."""
        # An agent that was killed a moment ago still says of those that it stopped that they are.
        units = [unit for unit in await units_of(self.registry) if unit.state != "stopped"]
        assert [(unit.version, unit.state) for unit in units] == [(version, "healthy")] * REPLICAS
        head = wish_at(self.farm, "HEAD").versions
        assert {name for name, each in head.items() if each.weight} == {version}

    def epochs(self) -> list[int]:
        """Of each commit since the beginning: the engine's that made it."""
        commits = commits_since(self.farm, self.before)
        found = [trailers(self.farm, commit) for commit in commits]
        assert all(each["Milkrun-Verdict"] in VERDICTS for each in found)
        return [int(each[EPOCH]) for each in found]

    def proved(self, load: Load) -> None:
        """Nobody noticed."""
        print(f"\n{load.clean()}")
        assert done_twice(self.farm) == {}
        self.known_shares()
        epochs = self.epochs()
        assert epochs == sorted(epochs)


def started(farm: Farm, *arguments: str) -> subprocess.Popen[str]:
    log = subprocess.PIPE if "up" in arguments else subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=farm.path,
        env=farm.environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    farm = goats_alone(tmp_path / "farm")
    up = started(farm, "-", "up")
    farm.ups.append(up)
    try:
        await asyncio.to_thread(farm.until, up, r"is up\. Try:")
        async with Registry(farm.address) as registry, asyncio.TaskGroup() as tasks:
            made = Scene(farm, registry)
            watching = tasks.create_task(made.watch())
            try:
                yield made
            finally:
                watching.cancel()
                for engine in made.engines:
                    engine.kill()
                    engine.wait()
    finally:
        farm.end()


async def until_ended(scene: Scene, rollout: str, **fate: object) -> tuple[Receipt, int]:
    """The receipt, and how many engines died on the way: after each death comes the next one."""
    deaths = 0
    async with asyncio.timeout(1_800 if SOAK else 120):
        while True:
            with contextlib.suppress(MilkrunError):
                if receipt := await scene.ended(rollout):
                    return receipt, deaths
            if scene.engines[-1].poll() is not None:
                assert scene.engines[-1].returncode == -signal.SIGKILL
                deaths += 1
                scene.engine(**fate)
            await asyncio.sleep(0.1)


FATES = [(strategy, when) for strategy in STRATEGIES for when in ("before", "after")]
TAKEN = [("rolling", "before"), ("canary", "after")]


@pytest.mark.timeout(3_600 if SOAK else 300)
@pytest.mark.parametrize(("strategy", "when"), FATES if SOAK else TAKEN)
async def test_an_engine_killed_at_any_record_is_followed_by_the_next(
    scene: Scene, strategy: Strategy, when: str
):
    fate = {"when": when, "each": SAMPLE, "first": STRATEGIES.index(strategy) % SAMPLE}
    scene.engine(**fate)
    await scene.acts("one")
    async with under_load(scene.farm, RATE) as load:
        rollout = await scene.ask("0.0.2", "--strategy", strategy)
        receipt, deaths = await until_ended(scene, rollout, **fate)
    print(f"\n{strategy}: {deaths} engines killed {when} a record was stored")
    assert deaths >= (8 if SOAK else 2)
    assert receipt.outcome == "done", receipt.reason
    await scene.runs("0.0.2")
    scene.proved(load)


@pytest.mark.timeout(3_600 if SOAK else 300)
@pytest.mark.parametrize("when", ["before", "after"] if SOAK else ["after"])
async def test_an_engine_killed_while_it_takes_back_is_followed_by_the_next(scene: Scene, when: str):
    """From the moment on that somebody says `abort`, with the new version at a part of the traffic."""
    scene.engine()
    await scene.acts("one")
    async with under_load(scene.farm, RATE) as load:
        rollout = await scene.ask("0.0.2")

        await until(lambda: at_a_part(scene))
        scene.engines[-1].kill()
        scene.engines[-1].wait()
        fate = {"when": when, "each": 1 if SOAK else 2, "first": 0}
        scene.engine(**fate)
        done = await asyncio.to_thread(scene.farm.milkrun, "rollout", "abort", "goat", "--reason", "no more")
        assert done.returncode in (0, 7), done.stderr
        receipt, deaths = await until_ended(scene, rollout, **fate)
    print(f"\n{deaths} engines killed {when} a record was stored")
    assert deaths >= (5 if SOAK else 2)
    assert receipt.outcome == "taken-back"
    await scene.runs("0.0.1")
    scene.proved(load)
    assert scene.farm.git("diff", "--stat", f"{scene.before}..HEAD") == ""


async def at_a_part(scene: Scene) -> bool:
    """Whether the new version has a part of the traffic."""
    state = (await shelf_of(scene.registry)).state
    return bool(state and state.wish.weights.get("0.0.2", 0) > 0 and state.served_at)


PARTS = ["registry", "gitsync", "agent", "lb-goat"]
"""All of them but the data plane: HAProxy goes on without its router."""


@pytest.mark.timeout(1_800 if SOAK else 300)
@pytest.mark.parametrize(
    ("strategy", "parts"),
    [(strategy, [part]) for strategy in STRATEGIES for part in PARTS] if SOAK else [("canary", PARTS)],
)
async def test_a_part_killed_at_every_step_stops_no_rollout(
    scene: Scene, strategy: Strategy, parts: list[str]
):
    scene.engine()
    await scene.acts("one")
    killed: list[str] = []
    async with under_load(scene.farm, RATE) as load:
        rollout = await scene.ask("0.0.2", "--strategy", strategy)
        step = -1
        async with asyncio.timeout(900 if SOAK else 150):
            while True:
                with contextlib.suppress(MilkrunError):
                    if receipt := await scene.ended(rollout):
                        break
                    state = (await shelf_of(scene.registry)).state
                    if state and state.plan.id == rollout and state.index > step:
                        step = state.index
                        part = parts[len(killed) % len(parts)]
                        await killed_and_back(scene, part)
                        killed.append(f"{part} at {state.steps[step].name}" if state.step else part)
                await asyncio.sleep(0.05)
    print(f"\n{strategy}: killed {', '.join(killed)}")
    assert len(killed) >= 4
    assert receipt.outcome == "done", receipt.reason
    await until_runs(scene, "0.0.2")
    scene.proved(load)


async def killed_and_back(scene: Scene, part: str) -> None:
    known = record(scene.farm.folder)
    assert known
    pid = known.parts[part].identity.pid
    os.kill(pid, signal.SIGKILL)

    async def back():
        found = record(scene.farm.folder)
        return bool(found and part in found.parts and found.parts[part].identity.pid != pid)

    await until(back)


async def until_runs(scene: Scene, version: str) -> None:
    """An agent or a registry that was killed a moment ago reports again first."""

    async def fact():
        units = await units_of(scene.registry)
        return [unit.version for unit in units if unit.state == "healthy"] == [version] * REPLICAS

    await until(fact)
    await scene.runs(version)


@pytest.mark.parametrize("committed", [False, True] if SOAK else [False])
async def test_an_engine_that_stood_still_commits_nothing_once_another_acts(scene: Scene, committed: bool):
    """It is stopped with its first commit announced and not made. The one that takes over takes the rollout back,
    before or after commits of its own, so that the file says again what it said before that commit.
    """
    before = scene.farm.git("show", f"HEAD:{FILE}")
    scene.engine("one", signal=signal.SIGSTOP, only="intent [start the new instances] commit", first=0)
    await scene.acts("one")
    scene.engine("two")
    async with under_load(scene.farm, RATE) as load:
        rollout = await scene.ask("0.0.2")
        if committed:
            await scene.acts("two")
            await until(lambda: at_a_part(scene))
        # Written down, also when nobody is there to take it up.
        await asyncio.to_thread(scene.farm.milkrun, "rollout", "abort", "goat")

        async def over():
            return await scene.ended(rollout) is not None

        await until(over)
        head = scene.farm.git("rev-parse", "HEAD")
        journal = (await shelf_of(scene.registry)).journal
        os.kill(scene.engines[0].pid, signal.SIGCONT)

        async def stands_by():
            """The first one has found out: under a session of its own it reports again, and that it does not act."""
            pair = await scene.registry.get(keys.engine_report("one"))
            return bool(pair and b'"acts":false' in pair.data)

        await until(stands_by)
    await scene.acts("two")
    assert scene.farm.git("rev-parse", "HEAD") == head
    assert (await shelf_of(scene.registry)).journal == journal
    assert scene.farm.git("show", f"HEAD:{FILE}") == before
    receipt = await scene.ended(rollout)
    assert receipt
    assert receipt.outcome == "taken-back"
    assert bool(commits_since(scene.farm, scene.before)) == committed
    await scene.runs("0.0.1")
    scene.proved(load)


@pytest.mark.parametrize("chosen", ["intent [weight 60%] commit"])
async def test_a_standby_takes_over_from_an_engine_that_was_killed(scene: Scene, chosen: str):
    scene.engine("one", only=chosen, first=0)
    await scene.acts("one")
    scene.engine("two")
    async with under_load(scene.farm, RATE) as load:
        rollout = await scene.ask("0.0.2")

        async def over():
            return await scene.ended(rollout) is not None

        await until(over)
    await scene.acts("two")
    receipt = await scene.ended(rollout)
    assert receipt
    assert receipt.outcome == "done"
    await scene.runs("0.0.2")
    assert len(set(scene.epochs())) == 2
    scene.proved(load)
