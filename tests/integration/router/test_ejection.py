"""An instance that fails, hangs or becomes slow while its check is good: the data plane's own figures put it aside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from alone import Alone
from haproxies import OTHERS
from ports import free_port

from milkrun.model import Health, Instance, InstanceId, ServiceName, VersionName, Wish
from milkrun.router.desired import RoutingState
from milkrun.router.reconcile import Facts, Reconciler

NAMES = ("a", "b", "c")
ENVOY = pytest.param("envoy", marks=pytest.mark.needs("envoy"))
STEP_S = 5.0


class Goat:
    """An instance that answers as it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.slow_s = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        self.port = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.gate.wait()
        await asyncio.sleep(self.slow_s)
        return web.Response(status=self.status)


class Herd:
    """A router's loop over a real data plane before three goats. Its clock is the test's."""

    def __init__(self, folder: Path, *, envoy: bool) -> None:
        self.listen = ("127.0.0.1", free_port())
        self.plane = Alone(folder, "goat", listen=self.listen, stats=("127.0.0.1", free_port()), envoy=envoy)
        self.goats = {name: Goat() for name in NAMES}
        self.now = 1000.0
        self.reconciler = Reconciler(ServiceName("goat"), self.plane, folder, clock=lambda: self.now)

    async def look(self, after_s: float = STEP_S) -> list[str]:
        """Who is aside after one turn of the loop, so much later."""
        self.now += after_s
        await self.reconciler.count()
        instances = [
            Instance(
                id=InstanceId(name),
                service=ServiceName("goat"),
                version=VersionName("v1"),
                address="127.0.0.1",
                port=goat.port,
                health=Health.PASSING,
            )
            for name, goat in self.goats.items()
        ]
        served = await self.reconciler.reconcile(Facts(instances=instances, wish=Wish(), index=1))
        assert served.drift == []
        return [why.split()[0] for why in self.reconciler.aside]

    async def ask(self, times: int) -> None:
        """So many requests at once; who waits for an answer is not waited for."""
        url = "http://{}:{}/".format(*self.listen)

        async def one() -> None:
            with contextlib.suppress(TimeoutError):
                async with self.http.get(url) as answer:
                    await answer.read()

        async with (
            ClientSession(timeout=ClientTimeout(total=1), connector=TCPConnector(limit=0)) as self.http,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(times):
                tasks.create_task(one())

    async def until_aside(self, name: str) -> str:
        for _ in range(12):
            await self.ask(60)
            if aside := await self.look():
                assert aside == [name]
                return self.reconciler.aside[0]
        raise AssertionError(f"{name} was never put aside")


@pytest.fixture(params=["haproxy", ENVOY])
async def herd(request, tmp_path, monkeypatch) -> AsyncIterator[Herd]:
    if request.param.startswith("/"):
        monkeypatch.setenv("MILKRUN_HAPROXY", request.param)
    found = Herd(tmp_path, envoy=request.param == "envoy")
    runners = []
    for goat in found.goats.values():
        app = web.Application()
        app.router.add_get("/", goat.answer)
        runners.append(web.AppRunner(app, shutdown_timeout=0.1))
        await runners[-1].setup()
        tcp = web.TCPSite(runners[-1], "127.0.0.1", 0)
        await tcp.start()
        goat.port = runners[-1].addresses[0][1]
    await found.plane.start(RoutingState())
    await found.look()
    await found.look()
    yield found
    for goat in found.goats.values():
        goat.gate.set()
    await found.plane.stop()
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize("herd", ["haproxy", *OTHERS, ENVOY], indirect=True)
async def test_one_that_answers_5xx_is_asked_nothing_for_a_while_and_then_again(herd):
    sick = herd.goats["b"]
    sick.status = 503
    why = await herd.until_aside("b")
    asked = sick.asked
    assert f"{asked} of its {asked} requests failed" in why
    await herd.ask(30)
    assert sick.asked == asked
    assert herd.reconciler.instances(0)["b"].failures == asked

    sick.status = 200
    assert await herd.look(after_s=4.9) == ["b"]
    assert await herd.look(after_s=0.2) == []
    await herd.ask(30)
    assert abs(sick.asked - asked - 10) <= 1  # each of Envoy's threads goes round by itself
    assert await herd.look() == []
    assert herd.plane.reloads == 0


async def test_one_that_is_silent(herd):
    herd.goats["b"].gate.clear()

    assert "requests wait for it" in await herd.until_aside("b")


@pytest.mark.parametrize("herd", ["haproxy"], indirect=True)
async def test_one_that_became_slow(herd):
    for _ in range(3):
        await herd.ask(60)
        assert await herd.look() == []
    herd.goats["b"].slow_s = 0.4

    assert "its answers take" in await herd.until_aside("b")


async def test_what_all_do_puts_nobody_aside(herd):
    for goat in herd.goats.values():
        goat.status = 500
    for _ in range(6):
        await herd.ask(60)
        assert await herd.look() == []
