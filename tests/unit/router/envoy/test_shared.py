"""Whoever asks is told what was read after the asking; those who ask at once are told by one reading."""

from __future__ import annotations

import asyncio

import pytest

from milkrun.errors import DataPlaneError
from milkrun.router.envoy.admin import Shared


class Admin:
    """Counts its readings, of which each waits for the gate."""

    def __init__(self) -> None:
        self.readings = 0
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.broken = False

    async def get(self, path: str) -> bytes:
        self.readings += 1
        number = self.readings
        self.begun.set()
        await self.gate.wait()
        if self.broken:
            raise DataPlaneError("no")
        return f"{path} {number}".encode()


async def test_who_asks_while_it_is_read_gets_the_next_reading_with_all_others_who_do():
    admin = Admin()
    shared = Shared(admin)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(shared.read("/a"))
        await admin.begun.wait()
        later = [tasks.create_task(shared.read("/a")) for _ in range(20)]
        await asyncio.sleep(0)
        admin.gate.set()
    assert await first == b"/a 1"
    assert {await each for each in later} == {b"/a 2"}
    assert await shared.read("/a") == b"/a 3"


async def test_each_path_is_read_for_itself():
    admin = Admin()
    admin.gate.set()
    shared = Shared(admin)
    found = await asyncio.gather(*(shared.read(path) for path in ("/a", "/b", "/a", "/b")))
    assert [each[:2] for each in found] == [b"/a", b"/b", b"/a", b"/b"]


async def test_a_reading_that_fails_is_nobody_elses_answer():
    admin = Admin()
    shared = Shared(admin)
    admin.gate.set()
    admin.broken = True
    with pytest.raises(DataPlaneError):
        await shared.read("/a")
    admin.broken = False
    assert await shared.read("/a") == b"/a 2"
