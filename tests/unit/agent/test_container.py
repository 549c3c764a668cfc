"""A container that an engine speaks of as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from milkrun.agent.units.container import REMOVED, Container
from milkrun.agent.units.docker import EngineAway, EngineRefused
from milkrun.agent.units.docker_answers import Container as Seen
from milkrun.agent.units.docker_answers import State
from milkrun.agent.units.program import Place
from milkrun.agent.units.running import Order, Watcher
from milkrun.settings.service import ServiceSettings
from milkrun.settings.unit import DockerSettings

STAMP = b"2026-11-20T20:04:3%d.5Z "


def frame(second: int, text: bytes) -> bytes:
    body = STAMP % second + text
    return b"\x01\0\0\0" + len(body).to_bytes(4, "big") + body


class FakeEngine:
    """One container. What it writes comes when it is given."""

    def __init__(self) -> None:
        self.state = State(running=True, pid=7)
        self.there = True
        self.away = False
        self.over = asyncio.Event()
        self.blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.asked: list[str] = []
        self.signals: list[str] = []

    def _answers(self) -> None:
        if self.away:
            raise EngineAway("the Docker engine does not answer")

    async def inspect(self, _: str) -> Seen | None:
        self._answers()
        return Seen(id="c0ffee", state=self.state) if self.there else None

    async def ended(self, _: str) -> bool:
        await self.over.wait()
        self._answers()
        return True

    async def kill(self, _: str, signal: str) -> None:
        self._answers()
        self.signals.append(signal)

    async def remove(self, _: str) -> None:
        self._answers()
        self.there = False

    async def log(self, _: str, since: str):
        self.asked.append(since)
        while (block := await self.blocks.get()) is not None:
            yield block

    def ends(self, **state) -> None:
        self.state = State(**state)
        self.over.set()


@contextlib.asynccontextmanager
async def running(tmp_path: Path, *, fresh: bool = True):
    engine, outcomes, news = FakeEngine(), asyncio.Queue(), asyncio.Event()
    place = Place(service="goat", version="1", instance="goat-1", address="127.0.0.1", port=8101)
    settings = ServiceSettings(docker=DockerSettings(image="goat"))
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        watcher = Watcher(on_exit=outcomes.put_nowait, on_news=news.set, tasks=tasks)
        order = Order(settings=settings, place=place, log=tmp_path / "goat.log")
        container = Container(engine, "c0ffee", order, watcher, None, fresh=fresh)
        yield engine, container, outcomes, news
        container.leave()


async def test_its_log_is_whole_before_it_is_removed(tmp_path):
    async with running(tmp_path) as (engine, container, outcomes, _):
        engine.blocks.put_nowait(frame(1, b"one\n"))
        engine.ends(exit_code=3)
        assert await outcomes.get() == "container exited with status 3"
        async with asyncio.TaskGroup() as tasks:
            clearing = tasks.create_task(container.clear())
            while not (tmp_path / "goat.log").exists():
                await asyncio.sleep(0)
            assert engine.there
            assert not clearing.done()
            engine.blocks.put_nowait(frame(2, b"two\n"))
            engine.blocks.put_nowait(None)
        assert (tmp_path / "goat.log").read_text() == "one\ntwo\n"
        assert not engine.there
        assert [path.name for path in tmp_path.iterdir()] == ["goat.log"]


async def test_the_next_agent_asks_for_the_log_from_where_the_last_one_was(tmp_path):
    async with running(tmp_path) as (engine, *_):
        engine.blocks.put_nowait(frame(1, b"one\n"))
        while not (tmp_path / "goat.log.read").exists():
            await asyncio.sleep(0)
    async with running(tmp_path, fresh=False) as (engine, *_):
        while not engine.asked:
            await asyncio.sleep(0)
        assert engine.asked == ["1795205071.500000001"]
    async with running(tmp_path) as (engine, *_):
        while not engine.asked:
            await asyncio.sleep(0)
        assert engine.asked == ["0"]


async def test_who_removes_it_ends_it(tmp_path):
    async with running(tmp_path) as (engine, _, outcomes, _):
        engine.there = False
        engine.over.set()
        assert await outcomes.get() == REMOVED


async def test_an_engine_that_is_away_says_nothing_of_it(tmp_path):
    async with running(tmp_path) as (engine, container, outcomes, news):
        engine.away = True
        engine.over.set()
        await news.wait()
        assert (
            container.trouble == "the Docker engine does not answer; whether the container runs is not known"
        )
        assert not container.exited.is_set()
        news.clear()
        engine.over.clear()
        engine.away = False
        await news.wait()
        assert container.trouble == ""
        assert outcomes.empty()


async def test_a_stop_that_the_engine_does_not_hear_fails_in_bounded_time(tmp_path):
    async with running(tmp_path) as (engine, container, outcomes, _):
        engine.away = True
        with pytest.raises(EngineAway):
            await container.stop(0.0)
        assert outcomes.empty()
        engine.away = False
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(container.stop(5.0))
            while not engine.signals:
                await asyncio.sleep(0.01)
            engine.over.clear()
            engine.ends(exit_code=0)
        assert stopping.result()
        assert engine.signals == ["TERM"]


async def test_an_engine_that_refuses_the_log_is_told_of(tmp_path, monkeypatch):
    async def refused(self, _: str, since: str):
        raise EngineRefused("the Docker engine says: no log driver", status=501)
        yield b""

    monkeypatch.setattr(FakeEngine, "log", refused)
    async with running(tmp_path) as (_, container, _, news):
        await news.wait()
        assert container.trouble.startswith(
            "its log cannot be followed: the Docker engine says: no log driver"
        )
