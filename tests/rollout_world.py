"""A small world in which a rollout goes on: git, gitsync, routers, agents and users, all of one seed.

The engine in it can be killed at any record: before an action, in the middle of it, and before its outcome is stored.
"""

from __future__ import annotations

import random

import msgspec
from rollout_database import Database

from milkrun.model import (
    SHARE_SLOTS,
    CommitId,
    Figures,
    Health,
    Instance,
    InstanceId,
    InstanceTraffic,
    RouterId,
    RouterReport,
    ServiceName,
    SyncReport,
    UnitReport,
    VersionName,
    VersionTraffic,
    Wish,
)
from milkrun.rollout import machine
from milkrun.rollout.actions import Committed, MakeCommit, NotNow, RunHooks, RunMigration, RunSmoke, Tested
from milkrun.rollout.analysis.verdict import Seen
from milkrun.rollout.facts import Facts, Head
from milkrun.rollout.observed import Recent
from milkrun.rollout.opening import begun
from milkrun.rollout.plan import plan
from milkrun.rollout.state import Commit, Intent, State
from milkrun.settings import deploy
from milkrun.settings.rollout import RolloutSettings

GOAT = ServiceName("goat")
OLD, NEW = VersionName("0.0.1"), VersionName("0.0.2")
BASE = b'{"version=0.0.1": {"weight": 100, "replicas": 3}}\n'
TICK_S = 1.0


class Sickness(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the new version."""

    failing: float = 0.0
    slower: float = 1.0
    never_healthy: bool = False
    crashes_after_s: float = 0.0
    bad_smoke: bool = False


WELL = Sickness()


class Unit(msgspec.Struct):
    """An instance of the world."""

    name: str
    version: VersionName
    healthy_at: float
    restarts: int = 0
    draining_until: float = 0.0
    requests: int = 0
    failures: int = 0


class Router(msgspec.Struct):
    """A router of the world: it follows git a little later."""

    name: str
    lag_s: float
    wish: Wish
    generation: int
    since: float = 0.0
    total: dict[VersionName, tuple[int, int]] = {}
    window: dict[VersionName, tuple[int, int]] = {}


class World:
    """One rollout in it. `run` goes on until it has ended or waits for a person."""

    def __init__(
        self,
        seed: int,
        settings: RolloutSettings,
        *,
        sick: Sickness = WELL,
        strategy=None,
        base: bytes = BASE,
        rate: float = 400.0,
        kill: float = 0.0,
        routers: int = 2,
        database: Database | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.sick, self.rate, self.kill = sick, rate, kill
        self.file, self.history = base, [(0.0, base)]
        self.database = database
        migrations = {NEW: database.migration} if database else None
        self.plan = plan("r1", GOAT, NEW, base, settings, strategy=strategy, migrations=migrations)
        start = Intent(id="1", verb="start", by="test", at=self.now)
        self.stored: State = begun(self.plan, start, 1, self.now)
        self.intents: list[Intent] = []
        self.journal = []
        self.routers = [
            Router(f"r{number}", self.random.uniform(0, 2), deploy.parse(base, "f"), 1)
            for number in range(routers)
        ]
        self.units: list[Unit] = []
        self.broken_old = False
        self._named = 0
        self._settle(deploy.parse(base, "f"), at_once=True)
        self.recent = Recent(settings.analysis.guard_window_s)
        self.kills = 0
        self.edited_at: float | None = None

    # What the world does by itself

    @property
    def generation(self) -> int:
        return len(self.history)

    def write(self, data: bytes) -> None:
        self.file = data
        self.history.append((self.now, data))

    def _settle(self, wish: Wish, *, at_once: bool = False) -> None:
        for version in {unit.version for unit in self.units} | set(wish.versions):
            count = (wish.versions[version].replicas or 0) if version in wish.versions else 0
            mine = [unit for unit in self.units if unit.version == version and not unit.draining_until]
            for unit in mine[count:]:
                unit.draining_until = self.now + self.random.uniform(0.5, 3)
            for _ in range(count - len(mine)):
                self._named += 1
                wait = 0 if at_once else self.random.uniform(0.5, 4)
                ill = self.sick.never_healthy if version == NEW else self.broken_old
                self.units.append(
                    Unit(f"goat-{version}-{self._named}", version, 1e12 if ill else self.now + wait)
                )

    def tick(self) -> None:
        self.now += TICK_S
        wish = deploy.parse(self.file, "f")
        self._settle(wish)
        for unit in list(self.units):
            if unit.draining_until and self.now >= unit.draining_until:
                self.units.remove(unit)
            crashes = self.sick.crashes_after_s
            if crashes and unit.version == NEW and self.now - unit.healthy_at > crashes:
                unit.restarts += 1
                unit.healthy_at = self.now + 2
        for router in self.routers:
            self._follow(router, wish)
            self._serve(router)
        if self.database:
            share = sum(self.shares(router).get(NEW, 0.0) for router in self.routers)
            self.database.judge(running=self.running(NEW), share=share)

    def _follow(self, router: Router, wish: Wish) -> None:
        written = self.history[-1][0]
        if router.generation < self.generation and self.now >= written + router.lag_s:
            if wish.weights != router.wish.weights:
                router.window = {}
            router.wish, router.generation = wish, self.generation

    def running(self, version: VersionName) -> int:
        return sum(unit.version == version for unit in self.units)

    def healthy(self, version: VersionName) -> list[Unit]:
        return [
            unit
            for unit in self.units
            if unit.version == version and unit.healthy_at <= self.now and not unit.draining_until
        ]

    def shares(self, router: Router) -> dict[VersionName, float]:
        weights = {
            name: weight for name, weight in router.wish.weights.items() if weight and self.healthy(name)
        }
        whole = sum(weights.values())
        return {name: weight / whole for name, weight in weights.items()} if whole else {}

    def _serve(self, router: Router) -> None:
        shares = self.shares(router)
        down = not shares
        if down:  # the last shares stay, and nobody answers
            sick = self.broken_old or router.wish.weights.get(NEW)
            assert sick, f"nobody serves at {self.now}: {router.wish}"
            weights = router.wish.weights
            shares = {max(weights, key=lambda name: weights[name]): 1.0}
        for version, share in shares.items():
            mean = self.rate * TICK_S / len(self.routers) * share
            count = int(mean) + (self.random.random() < mean % 1)
            rate = 1.0 if down else self.sick.failing if version == NEW else 0.001
            failed = sum(self.random.random() < rate for _ in range(count))
            for book in (router.total, router.window):
                had = book.get(version, (0, 0))
                book[version] = (had[0] + count, had[1] + failed)
            for unit in self.healthy(version):
                unit.requests += count // len(self.healthy(version))

    # What the engine sees

    def facts(self) -> Facts:
        reports = [self._report(router) for router in self.routers]
        commit = CommitId(f"{self.generation:040x}")
        return Facts(
            head=Head(commit=commit, generation=self.generation, text=self.file.decode()),
            sync=SyncReport(
                repository="", branch="main", commit=commit, generation=self.generation, synced_at=0.0
            ),
            routers=reports,
            units=[self._unit(unit) for unit in self.units],
            instances=[self._instance(unit) for unit in self.units if unit.healthy_at <= self.now],
            recent=self._recent(reports),
        )

    def _recent(self, reports: list[RouterReport]) -> Seen:
        return self.recent.take(reports, NEW, self.now)

    def _report(self, router: Router) -> RouterReport:
        shares = self.shares(router)
        return RouterReport(
            router=RouterId(router.name),
            service=GOAT,
            host="h",
            listen="",
            stats="",
            commit=None,
            generation=router.generation,
            applied_at=0.0,
            catalog_index=1,
            since=router.since,
            versions={
                name: VersionTraffic(
                    share=round(shares.get(name, 0.0) * SHARE_SLOTS),
                    total=self._figures(name, router.total.get(name, (0, 0))),
                    window=self._figures(name, router.window.get(name, (0, 0))),
                )
                for name in {*router.wish.versions, *router.total}
            },
            instances={
                InstanceId(unit.name): InstanceTraffic(
                    state="serving",
                    requests=unit.requests // len(self.routers),
                    mean_ms=10.0 * (self.sick.slower if unit.version == NEW else 1.0),
                )
                for unit in self.units
                if unit.requests
            },
        )

    def _figures(self, version: VersionName, counted: tuple[int, int]) -> Figures:
        slow = self.sick.slower if version == NEW else 1.0
        return Figures(
            requests=counted[0],
            failures=counted[1],
            latency={100 if slow < 1.3 else 110: counted[0]} if counted[0] else {},
        )

    def _unit(self, unit: Unit) -> UnitReport:
        state = (
            "draining" if unit.draining_until else "healthy" if unit.healthy_at <= self.now else "starting"
        )
        return UnitReport(
            instance=InstanceId(unit.name),
            service=GOAT,
            version=unit.version,
            slot=0,
            address="127.0.0.1",
            port=1,
            state=state,
            restarts=unit.restarts,
        )

    def _instance(self, unit: Unit) -> Instance:
        return Instance(
            id=InstanceId(unit.name),
            service=GOAT,
            version=unit.version,
            address="127.0.0.1",
            port=1,
            health=Health.MAINTENANCE if unit.draining_until else Health.PASSING,
        )

    # The engine, which may die anywhere

    def _dies(self) -> bool:
        dead = self.random.random() < self.kill
        self.kills += dead
        return dead

    def turn(self) -> None:
        """One turn of the engine: decide, store, act, store the outcome. A kill leaves what was stored."""
        decision = machine.decide(self.stored, self.facts(), self.intents, self.now)
        if self._dies():
            return
        self.stored, self.intents = decision.state, []
        self.journal += decision.entries
        if decision.action is None or self._dies():
            return
        result = self._do(decision.action)
        if result is None or self._dies():
            return
        after = machine.outcome(self.stored, result, self.now)
        self.stored = after.state
        self.journal += after.entries

    def _do(self, action):
        match action:
            case MakeCommit():
                return self._commit(action)
            case RunSmoke():
                return Tested(not self.sick.bad_smoke, "smoke")
            case RunHooks():
                return Tested(True, "hooks")
            case RunMigration(step):
                return self.database.carry_out(step, NEW, running=self.running(NEW), dies=self.kill / 4)

    def _commit(self, action: MakeCommit):
        said = deploy.parse(self.file, "f")
        if said not in (self.stored.wish, action.wish):
            return NotNow("somebody else has changed it")
        if said != action.wish:
            self._judge_commit(action.wish)
            self.write(BASE if action.wish == self.plan.wish else deploy.written(action.wish))
        return Committed(Commit(CommitId(f"{self.generation:040x}"), self.generation, self.now))

    def _judge_commit(self, wish: Wish) -> None:
        """What no rollout may ever ask for."""
        for name, each in wish.versions.items():
            assert not each.weight or each.replicas, f"traffic for {name}, which nobody runs: {wish}"
        for name in self.plan.wish.versions:
            before = deploy.parse(self.file, "f").versions.get(name)
            after = wish.versions.get(name)
            gone = before and before.replicas and not (after and after.replicas)
            if gone and self.plan.strategy != "rolling":
                for router in self.routers:
                    share = self.shares(router).get(name, 0)
                    assert share == 0, f"{name} is to go while {router.name} gives it {share}"

    def run(self, limit_s: float = 3000.0, hooks=()) -> State:
        """The state in which nothing more happens by itself."""
        until = self.now + limit_s
        while self.now < until:
            self.tick()
            for hook in hooks:
                hook(self)
            self.turn()
            if self.stored.over or self.stored.phase.value == "needs-person":
                break
        return self.stored
