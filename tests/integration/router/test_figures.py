"""What HAProxy counts is what instances answered: by version, by class, in time, over new shares and reloads."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, TCPConnector, web
from ports import free_port

from milkrun import latency
from milkrun.model import (
    CommitId,
    CommitMark,
    Figures,
    Health,
    Instance,
    InstanceId,
    ServiceName,
    VersionWish,
    Wish,
)
from milkrun.model import VersionName as Version
from milkrun.router.desired import Server
from milkrun.router.reconcile import Facts, Reconciler

V1, V2 = Version("v1"), Version("v2")


class Goat:
    """An instance that answers as it is asked to, and remembers what it answered and how long it took."""

    def __init__(self) -> None:
        self.port = free_port()
        self.answered: Counter[str] = Counter()
        self.took_ms: list[float] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        began = time.perf_counter()
        self.entered.set()
        if "wait" in request.query:
            await self.gate.wait()
        await asyncio.sleep(float(request.query.get("for", 0)))
        status = int(request.query.get("status", 200))
        self.answered[f"{status // 100}xx"] += 1
        self.took_ms.append((time.perf_counter() - began) * 1000)
        return web.Response(status=status, text="milk")


class Farm:
    """A router's loop over a real HAProxy, with an instance of each of two versions."""

    def __init__(self, site, reconciler: Reconciler) -> None:
        self.site = site
        self.reconciler = reconciler
        self.goats = {V1: Goat(), V2: Goat()}
        self.generation = 0
        self.took_ms: list[float] = []

    async def share(self, v1: int, v2: int, *others: str) -> None:
        """The shares are these; `others` are versions without a share, so that there are more lanes to fill."""
        self.generation += 1
        goats = [
            Instance(
                id=InstanceId(f"goat-{name}"),
                service=ServiceName("goat"),
                version=Version(name),
                address="127.0.0.1",
                port=self.goats[V1 if name != V2 else V2].port,
                health=Health.PASSING,
            )
            for name in (V1, V2, *others)
        ]
        wish = Wish(
            versions={V1: VersionWish(weight=v1), V2: VersionWish(weight=v2)},
            mark=CommitMark(commit=CommitId(f"{self.generation:040x}"), generation=self.generation),
        )
        await self.reconciler.reconcile(Facts(instances=goats, wish=wish, index=self.generation))

    async def ask(self, session: ClientSession, query: str = "") -> int:
        began = time.perf_counter()
        async with session.get("http://{}:{}/?{}".format(*self.site.listen, query)) as answer:
            await answer.read()
            self.took_ms.append((time.perf_counter() - began) * 1000)
            return answer.status

    async def total(self, version: Version) -> Figures:
        await self.reconciler.count()
        return self.reconciler.traffic()[version].total

    async def counted(self, version: Version) -> Figures:
        """The figures once HAProxy has counted what the version's instance answered: the client hears first."""
        async with asyncio.timeout(10):
            while (found := await self.total(version)).requests < self.goats[version].answered.total():
                await asyncio.sleep(0.01)
        return found


@pytest.fixture
async def farm(site, make_state, tmp_path) -> AsyncIterator[Farm]:
    found = Farm(site, Reconciler(ServiceName("goat"), site.plane, tmp_path))
    runners = []
    for goat in found.goats.values():
        app = web.Application()
        app.router.add_get("/", goat.answer)
        runners.append(web.AppRunner(app, shutdown_timeout=0.1))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", goat.port).start()
    await site.plane.start(make_state({}))
    await found.share(50, 50)
    await found.reconciler.count()  # what was before the router counts for nobody
    yield found
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession(connector=TCPConnector(limit=0)) as found:
        yield found


async def gone(farm: Farm) -> None:
    """The former workers have nothing left to do, and HAProxy's master says that they have ended."""
    async with asyncio.timeout(10):
        while await farm.site.plane.former_workers():
            await asyncio.sleep(0.01)
        while await farm.site.plane._process.former_workers():  # the master's word alone
            await asyncio.sleep(0.01)


async def test_every_answer_counts_for_its_version_while_shares_move_and_workers_change(farm, session):
    done = asyncio.Event()

    async def asking(statuses: tuple[int, ...]) -> None:
        while not done.is_set():
            for status in statuses:
                await farm.ask(session, f"status={status}&for=0.005")  # so slowly that each is timed

    async with asyncio.TaskGroup() as tasks:
        for statuses in ((200, 404), (200, 500, 503), (301, 200), (204,)):
            tasks.create_task(asking(statuses))
        for step in range(12):
            await farm.share(100 - 8 * step, 8 * step)
            await farm.reconciler.count()
            others = {3: 8, 7: 18}.get(step, 0)  # more versions than lanes: a reload
            if others:
                await farm.share(100 - 8 * step, 8 * step, *(f"idle{number}" for number in range(others)))
        done.set()

    assert farm.site.plane.reloads == 2
    for version, goat in farm.goats.items():
        figures = await farm.counted(version)
        assert figures.answers == dict(goat.answered), version
        assert figures.requests == goat.answered.total()
        assert figures.failures == goat.answered["5xx"]
        assert sum(figures.latency.values()) == goat.answered.total()
        assert figures.bytes_out > figures.requests * len("milk")


async def test_quantiles_are_between_what_the_instance_and_what_the_client_saw(farm, session):
    await farm.share(1, 0)
    times = (0.002, 0.004, 0.008, 0.016, 0.032)
    for seconds in times * 20:
        await farm.ask(session, f"for={seconds}")
    figures = await farm.counted(V1)

    def ranked(samples: list[float], fraction: float) -> float:
        return sorted(samples)[round(fraction * len(samples)) - 1]

    for fraction in (0.2, 0.5, 0.8, 0.9, 0.99):
        found = latency.quantile_ms(figures.latency, fraction)
        assert found
        assert found >= ranked(farm.goats[V1].took_ms, fraction) * 0.95
        assert found <= ranked(farm.took_ms, fraction) * 1.05


async def test_a_reload_loses_nothing_and_the_former_worker_goes_once_it_was_read(farm, session):
    goat = farm.goats[V1]
    await farm.share(1, 0)
    for _ in range(50):
        await farm.ask(session)  # counted by HAProxy, and not read before the reload
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(farm.ask(session, "wait"))
        goat.entered.clear()
        await goat.entered.wait()
        await farm.share(1, 0, *(f"idle{number}" for number in range(8)))
        assert farm.site.plane.reloads == 1
        await farm.total(V1)
        assert farm.reconciler.traffic()[V1].in_flight == 1
        assert await farm.site.plane.former_workers() == 1
        for _ in range(50):
            await farm.ask(session)
        goat.gate.set()
    figures = await farm.counted(V1)

    assert figures.requests == sum(figures.latency.values()) == goat.answered.total() == 101
    assert farm.reconciler.traffic()[V1].in_flight == 0
    await gone(farm)


async def test_a_worker_without_requests_that_a_reload_left_is_soon_gone(farm, session):
    await farm.ask(session)
    await session.close()
    await farm.share(1, 1, *(f"idle{number}" for number in range(8)))
    await gone(farm)

    assert (await farm.total(V1)).requests + (await farm.total(V2)).requests == 1


async def test_what_the_pool_answers_counts_for_who_answered_it(farm, session, make_state):
    """A version whose only instance is away: its requests are caught, and are no success of its own."""
    await farm.share(1, 1)
    shares = dict(farm.reconciler.served.decision.state.shares)
    gone = Server(id=InstanceId("goat-v1"), address="127.0.0.1", port=free_port())
    there = Server(id=InstanceId("goat-v2"), address="127.0.0.1", port=farm.goats[V2].port)
    await farm.site.converge(make_state(shares, v1=[gone], v2=[there]))
    for _ in range(40):
        assert await farm.ask(session) == 200

    figures = await farm.counted(V2)
    assert figures.requests == figures.answers["2xx"] == 40
    assert await farm.total(V1) == Figures(), "not even timed"
    assert 0 < sum(figures.latency.values()) < 40, "what was caught is not timed"


async def test_services_of_one_router_read_the_worker_before_one_after_the_other(farm, session):
    """A sidecar's services count at the same time, on the one connection that the former worker has."""
    await farm.share(1, 0)
    await farm.ask(session)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(farm.ask(session, "wait"))
        farm.goats[V1].entered.clear()
        await farm.goats[V1].entered.wait()
        await farm.share(1, 0, *(f"idle{number}" for number in range(8)))
        readings = [tasks.create_task(farm.site.plane.traffic()) for _ in range(5)]
        await asyncio.wait(readings)
        farm.goats[V1].gate.set()

    assert len({place.process for reading in readings for place in reading.result()}) == 2
    assert (await farm.counted(V1)).requests == 2
    await gone(farm)


async def test_each_instance_has_its_own_figures_over_reloads_and_when_it_comes_again(farm, session):
    mine, other = InstanceId("goat-v1"), InstanceId("goat-v2")
    await farm.share(1, 0)
    for query in ("status=200&for=0.02", "status=500&for=0.02", "status=404&for=0.02"):
        await farm.ask(session, query)
    await farm.counted(V1)
    first = farm.reconciler.instances(0)
    await farm.share(1, 0, *(f"idle{number}" for number in range(8)))  # a reload
    await farm.reconciler.count()
    reloaded = farm.reconciler.instances(0)
    await farm.ask(session, "status=503")
    await farm.counted(V1)
    again = farm.reconciler.instances(0)

    assert farm.site.plane.reloads == 1
    assert (first[mine].requests, first[mine].failures) == (3, 1)
    assert 20 <= first[mine].mean_ms <= max(farm.took_ms) + 1
    assert reloaded[mine] == first[mine], "nothing happened"
    assert (again[mine].requests, again[mine].failures) == (4, 2)
    assert (again[other].requests, again[other].mean_ms) == (0, 0)
