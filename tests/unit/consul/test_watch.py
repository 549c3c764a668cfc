"""A watch: each new answer once, whatever the registry does; never faster than it makes sense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from milkrun.consul import Address, Registry, Watch, watch
from milkrun.consul.watch import Cursor

STEPS = st.one_of(st.just("error"), st.tuples(st.integers(0, 20), st.booleans()))


@given(st.lists(STEPS), st.floats(0, 1, exclude_max=True))
def test_whatever_comes_the_cursor_never_waits_at_an_index_that_was_not_the_last_answers(steps, jitter):
    cursor = Cursor()
    for step in steps:
        before = cursor
        if step == "error":
            cursor = cursor.failed()
            assert cursor.index == 0
            assert cursor.pause_s(jitter) > 0
        else:
            index, held_back = step
            cursor = cursor.answered(index, held_back=held_back)
            assert cursor.errors == 0
            assert cursor.index == (max(1, index) if max(1, index) >= before.index else 0)
            if before.index > max(1, index) or (before.index == max(1, index) and not held_back):
                assert cursor.pause_s(jitter) > 0, "who answers at once with nothing new is asked more slowly"
        assert cursor.pause_s(jitter) <= watch.LAST_RETRY_S


def test_an_answer_that_brings_the_index_forward_is_never_waited_after():
    cursor = Cursor()
    for index in range(1, 50):
        cursor = cursor.answered(index, held_back=False)
        assert cursor.pause_s(0.9) == 0


def test_pauses_grow_to_the_limit_and_differ_by_chance():
    cursor = Cursor()
    pauses = []
    for _ in range(12):
        cursor = cursor.failed()
        pauses.append(cursor.pause_s(0.999))
        assert cursor.pause_s(0.0) < cursor.pause_s(0.999)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(watch.LAST_RETRY_S, rel=0.01)
    assert cursor.answered(1, held_back=False).pause_s(0.9) == 0


class Scripted:
    """A registry that answers from a list, and then only the last of it."""

    def __init__(self, answers: list[web.Response | None]) -> None:
        self._answers = answers
        self.asked: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        found = self._answers[min(len(self.asked), len(self._answers)) - 1]
        if found is None:
            assert request.transport
            request.transport.abort()
            return web.Response()
        return web.Response(status=found.status, body=found.body, headers=found.headers)


def says(text: str, index: str = "1", status: int = 200, **headers: str) -> web.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, text=text, headers={"X-Consul-Index": index} | names)


@contextlib.asynccontextmanager
async def scripted(answers) -> AsyncIterator[tuple[Scripted, Watch]]:
    script = Scripted(answers)
    app = web.Application()
    app.router.add_get("/v1/kv/x", script.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = Address(url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with Registry(address) as registry:
        yield script, Watch(registry, "/v1/kv/x")
    await runner.cleanup()


async def seen(found: Watch, count: int) -> list[str]:
    answers = []
    async for answer in found:
        answers.append(answer.body.decode())
        if len(answers) == count:
            return answers
    raise AssertionError("a watch does not end")


async def test_each_new_answer_once_and_the_index_is_asked_with():
    async with scripted([says("a", "5"), says("a", "5"), says("b", "6")]) as (script, found):
        assert await seen(found, 2) == ["a", "b"]
    assert [asked.get("index") for asked in script.asked] == [None, "5", "5"]


@pytest.mark.parametrize(
    "trouble",
    [
        says("no", status=500),
        None,
        says("narrowed", X_Consul_Results_Filtered_By_ACLs="true"),
        says("leaderless", X_Consul_KnownLeader="false"),
        says("nobody's", index=""),
        says("nobody's", index="-5"),
        says("nobody's", index="9" * 400),
    ],
)
async def test_trouble_is_no_answer_and_starts_over(trouble):
    async with scripted([says("a", "5"), trouble, says("a", "5"), says("b", "6")]) as (script, found):
        assert await seen(found, 2) == ["a", "b"]
    assert [asked.get("index") for asked in script.asked] == [None, "5", None, "5"]
    assert found.trouble == ""


async def test_what_the_reader_refuses_is_no_answer():
    from milkrun.errors import RegistryRefused

    def read(body: bytes) -> None:
        if body == b"odd":
            raise RegistryRefused("odd", status=200)

    async with scripted([says("odd", "5"), says("even", "5")]) as (script, found):
        found._read = read
        assert await seen(found, 1) == ["even"]
    assert script.asked == [{}, {}]


async def test_an_index_that_goes_back_starts_over_and_its_answer_counts():
    async with scripted([says("a", "50"), says("b", "7"), says("b", "7"), says("c", "8")]) as (script, found):
        assert await seen(found, 3) == ["a", "b", "c"]
    assert [asked.get("index") for asked in script.asked] == [None, "50", None, "7"]


async def test_a_registry_that_never_waits_is_not_asked_without_end(monkeypatch):
    """The pauses are counted, not timed."""
    pauses: list[float] = []
    enough = asyncio.Event()
    real = asyncio.sleep

    async def sleep(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) > 10:
            enough.set()
        await real(0)

    async with scripted([says("a", "5")]) as (_, found), asyncio.TaskGroup() as tasks:
        monkeypatch.setattr(watch.asyncio, "sleep", sleep)
        task = tasks.create_task(seen(found, 2))
        await enough.wait()
        monkeypatch.setattr(watch.asyncio, "sleep", real)
        task.cancel()
    assert pauses[0] == 0
    assert max(pauses[1:6]) > 4 * watch.FIRST_RETRY_S / 2
    assert all(pause > 0 for pause in pauses[1:])
