from __future__ import annotations

import asyncio
import os
import sys

import msgspec
import pytest
import structlog
from ports import free_port

from milkrun.errors import DataPlaneError, PortTaken
from milkrun.host.process import Identity, identity
from milkrun.router import apart
from milkrun.router.apart import Apart, listening, remembered

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def a_proxy(folder) -> Apart:
    return Apart(folder, "Goat", record="process.json", log="goat.log", socket="goat.sock", leaves=["*.sock"])


async def up(proxy: Apart, folder, code: str) -> None:
    """It has said that it is up."""

    async def ask() -> None:
        if "up" not in (folder / "goat.log").read_text():
            raise DataPlaneError("it said nothing yet")

    await proxy.start([sys.executable, "-c", code], [], ask)


def test_what_was_written_down_is_remembered(tmp_path):
    known = Identity(pid=5, ticks=6, boot="b")
    (tmp_path / "process.json").write_bytes(msgspec.json.encode(known))
    assert remembered(tmp_path / "process.json") == known


def test_what_a_former_router_wrote_down_is_the_same_process(tmp_path):
    me = identity(os.getpid())
    assert me
    file = tmp_path / "process.json"
    file.write_bytes(msgspec.json.encode({"pid": me.pid, "started": me.ticks}))
    assert remembered(file) == me
    file.write_bytes(msgspec.json.encode({"pid": me.pid, "started": me.ticks - 1}))
    assert remembered(file) is None


@pytest.mark.parametrize("text", [None, "{", "[]", '{"pid": 1}', '{"pid": 1, "ticks": 2}'])
def test_nothing_that_can_be_understood_is_nobody(tmp_path, text):
    file = tmp_path / "process.json"
    if text is not None:
        file.write_text(text)
    assert remembered(file) is None


async def test_who_listens_on_its_socket_is_it_however_long_the_path(tmp_path, monkeypatch):
    folder = tmp_path / ("f" * 100) / ("g" * 100)
    folder.mkdir(parents=True)
    assert listening(folder, "goat.sock") is None
    monkeypatch.chdir(folder)
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), "goat.sock")
    async with server:
        assert listening(folder, "goat.sock") == identity(os.getpid())
        with monkeypatch.context() as other:
            other.setattr(os, "getuid", lambda: -1)
            assert listening(folder, "goat.sock") is None, "another user's"
    assert listening(folder, "goat.sock") is None, "nobody listens there any more"


async def test_the_next_router_finds_it_and_ends_it_by_force_when_it_must(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "EXIT_WAIT_S", 0.0)
    monkeypatch.setattr(apart, "TERM_WAIT_S", 0.2)
    first, second = a_proxy(tmp_path), a_proxy(tmp_path)
    await up(first, tmp_path, STUBBORN)
    assert second.adopt()
    assert second.pid == first.pid
    (tmp_path / "goat.sock").touch()

    async def soft() -> None:
        raise DataPlaneError("it has requests")

    with structlog.testing.capture_logs() as said:
        await second.end(soft)

    assert not first.running()
    assert [line["event"] for line in said] == ["Goat stops with requests in flight"]
    assert [path.name for path in tmp_path.iterdir()] == ["goat.log"]


async def test_why_it_does_not_come_up_is_told_in_its_own_words(tmp_path):
    with pytest.raises(DataPlaneError, match=r"Goat did not come up .*: no hay"):
        await up(a_proxy(tmp_path), tmp_path, "raise SystemExit('no hay')")
    with pytest.raises(DataPlaneError, match="/no/goat does not start: No such file"):
        await a_proxy(tmp_path).start(["/no/goat"], [], asyncio.Event().wait)


async def test_a_port_that_another_has_keeps_it_from_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "PORTS_WAIT_S", 0.0)
    port = free_port()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with server:
        with pytest.raises(PortTaken):
            await a_proxy(tmp_path).start(["/no/goat"], [("127.0.0.1", port)], asyncio.Event().wait)
    assert not (tmp_path / "process.json").exists()
