"""What a stop asks of the Docker engine, and how long it waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from milkrun.agent.plan import Slot
from milkrun.agent.records import Record
from milkrun.settings.folder import Folder
from milkrun.settings.service import ServiceSettings
from milkrun.settings.unit import DockerSettings
from milkrun.up import containers


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    (made.agent / "units").mkdir(parents=True)
    return made


@contextlib.asynccontextmanager
async def hanging_engine(path: Path) -> AsyncIterator[None]:
    """Connections are taken, and nothing is ever said."""

    taken: list[asyncio.StreamWriter] = []

    def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)

    async with await asyncio.start_unix_server(silent, path):
        yield
        for writer in taken:
            writer.close()
            await writer.wait_closed()


def recorded(folder: Folder, image: str) -> None:
    settings = ServiceSettings(command=[] if image else ["goat"], docker=DockerSettings(image=image))
    slot = Slot("goat", "1", 0)
    record = Record(instance="goat-1", slot=slot, address="127.0.0.1", port=1, log="", settings=settings)
    (folder.agent / "units" / "goat-1.json").write_bytes(msgspec.json.encode(record))


@pytest.mark.parametrize(("image", "told"), [("", False), ("goat:1", True)])
async def test_an_engine_that_hangs_is_told_of_where_a_container_was_recorded(
    folder, monkeypatch, image, told
):
    monkeypatch.setattr(containers, "ANSWER_S", 0.05)
    socket = folder.path / "s"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    recorded(folder, image)
    async with hanging_engine(socket):
        gone, stay = await containers.remove(folder)
        assert await containers.left(folder) == []
    assert gone == []
    assert [error.message for error in stay] == [
        f"the Docker engine at {socket} says nothing for 0.05 s"
    ] * told


async def test_where_no_engine_ever_was_nothing_is_said(folder, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder.path}/none")
    (folder.agent / "units" / "torn.json").write_bytes(b"{")
    assert await containers.remove(folder) == ([], [])
