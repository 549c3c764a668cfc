"""Instances as processes, from the settings to the log."""

from __future__ import annotations

import asyncio
import os

import pytest

from milkrun.agent.units.marked import marked
from milkrun.agent.units.process import kill
from milkrun.agent.units.processes import Processes
from milkrun.agent.units.program import Place
from milkrun.agent.units.running import Order, Watcher
from milkrun.errors import InputRefused
from milkrun.settings.service import ServiceSettings, StopSettings

PLACE = Place(service="goat", version="1", instance="goat-1", address="127.0.0.1", port=8101)


@pytest.fixture
def processes(tmp_path):
    yield Processes(tmp_path, tmp_path / "state", "http://127.0.0.1:8500")
    for found in marked(str(tmp_path / "state")):
        kill(found.identity)


async def ended(processes, tmp_path, script: str, **settings) -> str:
    """How it ended; what it wrote is in `log`. With a pipe `ready` it is stopped when it says that it is."""
    order = Order(
        settings=ServiceSettings(command=["/bin/sh", "-c", script], **settings),
        place=PLACE,
        log=tmp_path / "log",
    )
    outcome = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        watcher = Watcher(on_exit=outcome.set_result, on_news=lambda: None, tasks=tasks)
        process = await processes.start(order, watcher)
        if (tmp_path / "ready").exists():
            (tmp_path / "ready").read_text()  # a pipe: there is something when the other end says so
            assert await process.stop(10)
        return await outcome


async def test_a_secret_is_a_file_whose_path_it_finds(processes, tmp_path):
    key = tmp_path / "key"
    key.write_text("hay-and-oats\n")
    key.chmod(0o600)
    assert (
        await ended(processes, tmp_path, 'cat "$KEY_FILE"', secrets={"KEY": "key"})
        == "process exited with status 0"
    )
    assert (tmp_path / "log").read_text() == "hay-and-oats\n"
    key.chmod(0o644)
    with pytest.raises(ExceptionGroup) as refused:
        await ended(processes, tmp_path, "true", secrets={"KEY": "key"})
    assert isinstance(refused.value.exceptions[0], InputRefused)


async def test_it_ends_by_the_signal_of_its_settings(processes, tmp_path):
    os.mkfifo(tmp_path / "ready")
    script = "trap 'exit 7' USR1; echo > ready; while :; do sleep 0.05; done"
    assert (
        await ended(processes, tmp_path, script, stop=StopSettings(signal="USR1"))
        == "process exited with status 7"
    )
