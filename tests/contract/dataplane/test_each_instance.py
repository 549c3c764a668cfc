"""What every real data plane counts of each instance: the same, whichever carries the traffic."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import msgspec
import pytest

from milkrun.model import InstanceId
from milkrun.router.diff import leaving, settled
from milkrun.router.instance_traffic import InstanceLedger
from milkrun.router.plane import InstanceCounted

from .conftest import ENVOY, HERE, real
from .test_plane import converge, state


class Book:
    """The figures of each instance since the beginning, as a router reads them."""

    def __init__(self, plane, listen) -> None:
        self._plane = plane
        self._url = "http://{}:{}/".format(*listen)
        self._ledger = InstanceLedger()

    async def of(self, name: str) -> InstanceCounted:
        """An instance's figures now."""
        self._ledger = self._ledger.read(await self._plane.traffic())
        return self._ledger.total.get(InstanceId(name), InstanceCounted())

    async def counted(self, requests: int) -> dict[str, InstanceCounted]:
        """Each one's figures when so many requests have ended; they come a moment after the answers."""
        async with asyncio.timeout(10):
            while True:
                found = {name: await self.of(name) for name in ("a1", "a2")}
                if sum(one.requests for one in found.values()) >= requests:
                    return found
                await asyncio.sleep(0.02)

    async def ask(self, times: int, *, timeout_s: float = 10) -> list[int]:
        """The statuses of so many requests, one after the other; 0 for one that was not answered in time."""
        found = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
            for _ in range(times):
                status = 0
                with contextlib.suppress(TimeoutError):
                    async with session.get(self._url) as answer:
                        status = answer.status
                found.append(status)
        return found


@pytest.fixture
async def book(plane, listen, apps) -> Book:
    """Of a data plane that serves a1 and a2 by halves."""
    await plane.start(state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()]))
    found = Book(plane, listen)
    await found.of("a1")
    return found


@real
async def test_requests_and_failures_are_those_of_the_instance_that_answered(book, apps):
    apps["a1"].status, apps["a2"].status = 500, 404
    statuses = await book.ask(20)

    found = await book.counted(20)

    failed, well = statuses.count(500), statuses.count(404)
    assert failed + well == 20
    assert failed
    assert well
    assert found["a1"] == like(found["a1"], tried=failed, requests=failed, failures=failed)
    assert found["a2"] == like(found["a2"], tried=well, requests=well, failures=0)


@pytest.mark.parametrize(
    "plane", [HERE, ENVOY], indirect=True
)  # HAProxy 2.6 counts no try that was made again
async def test_who_hangs_up_failed_also_where_another_one_answered_the_caller(book, apps):
    apps["a1"].hangs_up = True
    assert set(await book.ask(6)) == {200}

    found = await book.counted(7)

    assert found["a1"].failures == found["a1"].requests == found["a1"].tried > 0
    assert (found["a2"].requests, found["a2"].failures) == (6, 0)


@real
async def test_what_an_instance_does_not_answer_was_handed_to_it_and_has_not_ended(book, apps):
    apps["a1"].gate.clear()
    statuses = await book.ask(6, timeout_s=0.5)

    waiting = statuses.count(0)
    found = await book.counted(6 - waiting)

    assert waiting
    assert found["a1"].tried == waiting
    assert found["a1"].failures == 0
    assert found["a2"].requests == 6 - waiting


@real
async def test_no_figure_goes_back_when_an_instance_leaves_and_comes_again(plane, book, apps):
    a1, a2 = (apps[name].server() for name in ("a1", "a2"))
    await book.ask(6)
    before = await book.counted(6)

    await gone(plane, state({"a": 10_000}, a=[a1]))
    assert await book.of("a2") == before["a2"]
    await converge(plane, state({"a": 10_000}, a=[a1, a2]))
    await book.ask(6)

    await book.counted(12)
    assert len(apps["a1"].seen) + len(apps["a2"].seen) == 12


async def gone(plane, wanted) -> None:
    """Whoever is not wanted is no longer there."""
    while not settled(await plane.observe(), wanted) or leaving(await plane.observe(), wanted):
        await converge(plane, wanted)


def like(found: InstanceCounted, **figures: int) -> InstanceCounted:
    """The same in time, with these figures."""
    return msgspec.structs.replace(found, **figures)
