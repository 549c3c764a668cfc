"""One service's rollout: look, decide, store, do, and store what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence

import msgspec
import structlog

from milkrun.consul import Registry, catalog
from milkrun.errors import MilkrunError
from milkrun.model import AgentReport, InstanceId, RouterReport, ServiceName, SyncReport
from milkrun.rollout import machine, queue, receipt
from milkrun.rollout.actions import Committed, MakeCommit, NotNow, RunHooks, RunMigration, RunSmoke, Tested
from milkrun.rollout.analysis.verdict import Finding
from milkrun.rollout.calls import Calls, Result
from milkrun.rollout.facts import Facts
from milkrun.rollout.git import Git
from milkrun.rollout.migrations.rides import Rides
from milkrun.rollout.observed import Recent
from milkrun.rollout.receipt import Receipt
from milkrun.rollout.state import Cause, Intent, Phase, State
from milkrun.rollout.store import Shelf, Store
from milkrun.settings import deploy

TICK_S = 0.5
AGAIN_S = 1.0
NUMBERS_S = 5.0


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says just now, as far as a rollout looks at it."""

    routers: dict[ServiceName, list[RouterReport]] = {}
    agents: list[AgentReport] = []
    sync: SyncReport | None = None
    intents: dict[ServiceName, dict[str, Intent]] = {}


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What all rollouts of one engine share. `scene` gives the newest one, `changed` is set when there is one."""

    registry: Registry
    store: Store
    git: Git
    calls: Calls
    rides: Rides
    epoch: int
    scene: Callable[[], Scene]
    news: Callable[[], asyncio.Event]
    told: Callable[[list[str], dict[str, object]], None]
    pushed: Callable[[], None]


class Pilot:
    """Flies one rollout until it has ended. Cancelled, it leaves everything as it stands for the next engine."""

    def __init__(self, site: Site, shelf: Shelf) -> None:
        if shelf.state is None:
            raise ValueError("there is no rollout to fly")
        self.state = msgspec.structs.replace(shelf.state, epoch=site.epoch)
        self._journal = list(shelf.journal)
        self._history = list(shelf.history)
        self._site = site
        self._stored: State | None = None
        self._action: asyncio.Task[Result] | None = None
        self._doing = ""
        self._taken: set[str] = set()
        self._numbers: list[Finding] = []
        self._progress = ""
        self._recent = Recent(self.state.plan.settings.analysis.guard_window_s)
        self._log = structlog.get_logger("rollout").bind(
            service=self.state.service, rollout=self.state.plan.id
        )

    @property
    def service(self) -> ServiceName:
        """Whose rollout it is."""
        return self.state.service

    async def run(self) -> None:
        """Returns when the rollout has ended. Raises Conflict when another engine has taken over."""
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(self._ask_numbers())
            try:
                while not self.state.over:
                    await self._turn(tasks)
            finally:
                self._drop_action()
                asking.cancel()

    async def _turn(self, tasks: asyncio.TaskGroup) -> None:
        news, commits = self._site.news(), self._site.git.news
        try:
            facts = await self._facts()
        except MilkrunError as error:
            self._log.warning("cannot look", why=error.message)
            await asyncio.sleep(AGAIN_S)
            return
        if self._action and self._action.done():
            result = self._action.result()
            self._action, self._doing = None, ""
            await self._follow(machine.outcome(self.state, Tested(result.good, result.said), time.time()))
            return
        intents = self._intents()
        off = queue.called_off(self.service, intents, self.state, time.time())
        others = {key for each in off for key in each.keys}
        mine = {key: i for key, i in intents.items() if i.verb != "start" and key not in others}
        decision = machine.decide(
            self.state, facts, list(mine.values()), time.time(), busy=self._action is not None
        )
        await self._follow(decision, taken=[*mine, *others], refused=[each.receipt for each in off])
        match decision.action:
            case MakeCommit():
                await self._commit(decision.action)
                return
            case RunSmoke():
                found = facts.healthy(self.state.plan.version)
                self._begin(tasks, self._site.calls.smoke(self.state.plan, found))
            case RunHooks(phase):
                about = self._about("hook") | {"phase": phase}
                self._begin(tasks, self._site.calls.hooks(self.state.plan, phase, about))
            case RunMigration(step):
                self._begin(tasks, self._site.rides.run(self.state.plan, step, self._say, self._routers))
            case None:
                pass
        if self._doing and self.state.doing != self._doing:
            self._drop_action()  # it is no longer wanted
        if not self.state.over:
            await self._wait(news, commits)

    def _intents(self) -> dict[str, Intent]:
        """What somebody wants and was not answered yet: what the registry says may be of before the last answer."""
        intents = self._site.scene().intents.get(self.service, {})
        self._taken &= intents.keys()
        return {key: intent for key, intent in intents.items() if key not in self._taken}

    async def _wait(self, *news: asyncio.Event) -> None:
        """Until something has changed, or it is time to look all the same."""
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(each.wait()) for each in news]
            actions = [self._action] if self._action else []
            await asyncio.wait([*waits, *actions], timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _facts(self) -> Facts:
        site, service = self._site, self.service
        scene = site.scene()
        head = await site.git.head(service)
        entries, _ = await site.registry.health(service)
        routers = self._routers()
        return Facts(
            head=head,
            sync=scene.sync,
            routers=routers,
            units=[unit for agent in scene.agents for unit in agent.units if unit.service == service],
            instances=catalog.instances(entries),
            placed={
                InstanceId(entry.service.id) for entry in entries if "slot" in (entry.service.meta or {})
            },
            progress=self._progress if self._action else "",
            recent=self._recent.take(routers, self.state.plan.version, time.time()),
            checks=self._numbers,
        )

    def _routers(self) -> list[RouterReport]:
        return self._site.scene().routers.get(self.service, [])

    def _say(self, said: str) -> None:
        self._progress = said

    # What was decided

    async def _follow(
        self, decision: machine.Decision, taken: Sequence[str] = (), refused: Sequence[Receipt] = ()
    ) -> None:
        """The decision is stored. Only then it is acted on."""
        before = self.state
        self.state = decision.state
        self._journal += decision.entries
        for entry in decision.entries:
            self._log.info(entry.said, kind=entry.kind, step=entry.step)
        if self.state == self._stored and not decision.entries and not taken:
            return
        self._history += refused
        if self.state.over:
            self._history.append(receipt.receipt(self.state, time.time()))
        while True:
            try:
                await self._site.store.save(
                    self.service,
                    state=self.state,
                    journal=self._journal if decision.entries else None,
                    taken=taken,
                    history=self._history if self.state.over or refused else None,
                )
                break
            except MilkrunError as error:
                if error.exit_status == 4:
                    raise
                self._log.warning("cannot be stored; nothing is done before it is", why=error.message)
                await asyncio.sleep(AGAIN_S)
        self._stored = self.state
        self._taken |= {*taken}
        self._tell(before)

    def _tell(self, before: State) -> None:
        """Those who asked to be told hear of what a person would want to know."""
        state = self.state
        if state.phase is not before.phase or state.paused != before.paused:
            self._site.told(state.plan.settings.notify, self._about(_event(state)))

    def _about(self, event: str) -> dict[str, object]:
        """What hooks and listeners are told."""
        state, plan = self.state, self.state.plan
        return {
            "event": event,
            "rollout": plan.id,
            "service": plan.service,
            "version": plan.version,
            "old": sorted(plan.old),
            "strategy": plan.strategy,
            "by": state.by,
            "step": f"{state.index + 1}/{len(state.steps)}",
            "reason": state.paused.reason if state.paused else state.reason,
        }

    async def _commit(self, action: MakeCommit) -> None:
        plan, now = self.state.plan, time.time()
        text = plan.base.encode() if action.wish == plan.wish else deploy.written(action.wish)
        rollout = plan.id if action.always else ""
        message = receipt.message(self.state, action.title, now)
        result: Committed | NotNow
        try:
            result = Committed(
                await self._site.git.commit(
                    self.service,
                    self.state.wish,
                    action.wish,
                    text,
                    message=message,
                    epoch=self._site.epoch,
                    now=now,
                    rollout=rollout,
                )
            )
            self._site.pushed()
        except MilkrunError as error:
            result = NotNow(error.message)
        await self._follow(machine.outcome(self.state, result, time.time()))
        if isinstance(result, NotNow):
            await asyncio.sleep(AGAIN_S)

    # Actions that take their time

    def _begin(self, tasks: asyncio.TaskGroup, action: Coroutine[None, None, Result]) -> None:
        self._drop_action()
        self._progress = ""
        self._action = tasks.create_task(action)
        self._doing = self.state.doing

    def _drop_action(self) -> None:
        if self._action:
            self._action.cancel()
        self._action, self._doing = None, ""

    async def _ask_numbers(self) -> None:
        """Never returns: the numbers from elsewhere are as new as they can be had."""
        while self.state.plan.settings.analysis.checks:
            if self.state.phase is Phase.RUNNING and self.state.commits:
                self._numbers = await self._site.calls.numbers(self.state.plan)
            await asyncio.sleep(NUMBERS_S)


def _event(state: State) -> str:
    if state.paused:
        return "edited" if state.paused.cause is Cause.FOREIGN_EDIT else "held"
    return "resumed" if state.phase is Phase.RUNNING else state.phase.value
