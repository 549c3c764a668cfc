"""What a service of a router tells of itself, over the fakes."""

from __future__ import annotations

import asyncio

import pytest

from milkrun.model import (
    CommitId,
    CommitMark,
    Health,
    Instance,
    InstanceId,
    RouterId,
    ServiceName,
    VersionName,
    VersionWish,
    Wish,
)
from milkrun.router.desired import RoutingState
from milkrun.router.reconcile import Reconciler
from milkrun.router.serving import Place, Serving
from milkrun.testing.plane import FakeDataPlane

GOAT = ServiceName("goat")
PLACE = Place(router=RouterId("lb"), host="shed", listen="127.0.0.1:1", stats="http://127.0.0.1:2/monitor")


class Proxy:
    name = "fake"
    reloads = 0
    behind = ""

    async def former_workers(self) -> int:
        return 0


@pytest.fixture
async def plane():
    found = FakeDataPlane()
    await found.start(RoutingState())
    return found


async def test_since_when_the_data_plane_differs_from_the_wish_is_told_until_it_does_not(plane, tmp_path):
    reports = asyncio.Queue()
    serving = Serving(
        GOAT, None, Proxy(), Reconciler(GOAT, plane, tmp_path), place=PLACE, tell=reports.put_nowait
    )
    serving._instances = [
        Instance(
            id=InstanceId("a"),
            service=GOAT,
            version=VersionName("1"),
            address="127.0.0.1",
            port=8001,
            health=Health.PASSING,
        )
    ]
    serving._wish = Wish(
        versions={VersionName("1"): VersionWish(weight=1)},
        mark=CommitMark(commit=CommitId("a" * 40), generation=1),
    )
    plane.deaf = True
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serving._reconcile())
        serving.look_again()
        first = await reports.get()
        again = await reports.get()
        assert first.unequal_since == again.unequal_since > 0
        plane.deaf = False
        while (await reports.get()).unequal_since:
            pass
        task.cancel()
