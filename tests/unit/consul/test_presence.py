"""How a component shows itself, against a real registry: sessions that die, files that tear, successors."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from milkrun.consul import Registry, Session
from milkrun.consul.presence import Presence, component
from milkrun.consul.watch import watch_prefix
from milkrun.testing.registry import embedded_registry

WITHIN_S = 30.0


class Report(msgspec.Struct):
    text: str


@pytest.fixture
async def registry(tmp_path):
    async with embedded_registry(tmp_path / "registry") as address, Registry(address) as found:
        yield found


@contextlib.asynccontextmanager
async def running(presence: Presence):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(presence.run())
        try:
            yield presence
        finally:
            task.cancel()


def presence(registry: Registry, folder: Path, port: int = 80, key: str = "reports/a") -> Presence:
    folder.mkdir(exist_ok=True)
    return Presence(registry, component("lb-goat", "shed", "127.0.0.1", port), [key], folder)


async def until(registry: Registry, prefix: str, fact) -> None:
    """The entries under the prefix are such that the fact is true."""
    async with asyncio.timeout(WITHIN_S):
        async for _ in watch_prefix(registry, prefix):
            if fact({pair.key: pair.data for pair in await registry.entries(prefix)}):
                return


async def test_a_deleted_session_takes_the_report_along_and_both_come_back(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("milkrun.consul.session.TTL_S", 10)
    async with running(presence(registry, tmp_path / "state")) as found:
        found.publish("reports/a", Report("one"))
        await until(registry, "reports/", lambda entries: entries)
        first = found.session.id

        await registry.destroy_session(first)

        await until(registry, "reports/", lambda entries: entries)
        assert found.session.id != first


async def test_a_report_that_somebody_deleted_is_written_again(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("milkrun.consul.presence.REWRITE_S", 0.2)
    async with running(presence(registry, tmp_path / "state")) as found:
        found.publish("reports/a", Report("one"))
        await until(registry, "reports/", lambda entries: entries)

        await registry.delete("reports/a")

        await until(registry, "reports/", lambda entries: entries)


async def test_an_emptied_catalog_gets_the_component_again(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("milkrun.consul.presence.TTL_S", 0.5)
    async with running(presence(registry, tmp_path / "state")) as found:
        async with asyncio.timeout(WITHIN_S):
            while not (await registry.health("lb-goat"))[0]:
                await asyncio.sleep(0.01)
            await registry.deregister(found.place[0])
            while not (await registry.health("lb-goat"))[0]:
                await asyncio.sleep(0.01)


async def test_a_killed_component_goes_on_in_its_own_session(registry, tmp_path):
    async with running(presence(registry, tmp_path / "state")) as found:
        found.publish("reports/a", Report("one"))
        await until(registry, "reports/", lambda entries: entries)
    session = tmp_path / "state" / "session"
    assert stat.S_IMODE(session.stat().st_mode) == 0o600

    async with running(presence(registry, tmp_path / "state")) as again:
        again.publish("reports/a", Report("two"))
        await until(registry, "reports/", lambda entries: b"two" in entries.get("reports/a", b""))
        assert again.session.id == found.session.id


@pytest.mark.parametrize("torn", [b"", b"\xff\xfe", b"../../../etc/passwd", b"a\nb", b"x" * 10_000])
async def test_a_torn_session_file_is_a_new_session(registry, tmp_path, torn):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "session").write_bytes(torn)
    async with running(presence(registry, tmp_path / "state")) as found:
        found.publish("reports/a", Report("one"))

        await until(registry, "reports/", lambda entries: entries)


async def test_a_session_that_another_registry_gave_is_replaced(registry):
    session = Session(registry, "x", behavior="delete", resume="00000000-0000-4000-8000-000000000000")

    assert not session.safe
    assert await session.ensure() != "00000000-0000-4000-8000-000000000000"
    assert session.safe


async def test_the_former_one_leaves_only_when_its_successor_has_reported(registry, tmp_path):
    state = tmp_path / "state"
    async with running(presence(registry, state, 80, "reports/old")) as former:
        former.publish("reports/old", Report("old"))
        await until(registry, "reports/", lambda entries: "reports/old" in entries)
        async with asyncio.timeout(WITHIN_S):
            while len((await registry.health("lb-goat"))[0]) < 1:
                await asyncio.sleep(0.01)
    successor = presence(registry, state, 81, "reports/new")
    async with running(successor), asyncio.TaskGroup() as tasks:
        moving = tasks.create_task(former.move_to(successor))
        async with asyncio.timeout(WITHIN_S):
            while len((await registry.health("lb-goat"))[0]) < 2:
                await asyncio.sleep(0.01)
        assert list({pair.key for pair in await registry.entries("reports/")}) == ["reports/old"]
        assert not moving.done()

        successor.publish("reports/new", Report("new"))

        await moving
        assert [pair.key for pair in await registry.entries("reports/")] == ["reports/new"]
        assert [entry.service.port for entry in (await registry.health("lb-goat"))[0]] == [81]
        assert successor.session.id == former.session.id


async def test_an_ended_component_leaves_nothing(registry, tmp_path):
    async with running(presence(registry, tmp_path / "state")) as found:
        found.publish("reports/a", Report("one"))
        await until(registry, "reports/", lambda entries: entries)
    await found.end()

    assert await registry.entries("reports/") == []
    assert (await registry.health("lb-goat"))[0] == []
    assert not (tmp_path / "state" / "session").exists()


async def test_the_second_one_of_a_name_is_told_to_take_another(registry, tmp_path):
    async with running(presence(registry, tmp_path / "one")) as one:
        one.publish("reports/a", Report("one"))
        await until(registry, "reports/", lambda entries: entries)
        with capture_logs() as logs:
            second = presence(registry, tmp_path / "two")
            async with running(second):
                second.publish("reports/a", Report("two"))
                async with asyncio.timeout(WITHIN_S):
                    while not any("--host" in line["event"] for line in logs):
                        await asyncio.sleep(0.02)
