"""A reload costs nobody a request because of one option (M1): with it none is lost, without it some are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import Counter

import pytest
from haproxies import on_each_release
from ports import free_port

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId
from milkrun.router.desired import Server
from milkrun.router.haproxy import binary, parse, plane

CLIENTS = 20
RELOADS = 12
RELOADS_AT_MOST = 150
OPTION = "  option idle-close-on-response\n"


@pytest.fixture
def upstream(tmp_path):
    """An instance that is quick enough not to matter: the frontend of another HAProxy."""
    port = free_port()
    (tmp_path / "upstream.cfg").write_text(
        "defaults\n  mode http\n  timeout client 1m\n  timeout connect 1s\n  timeout server 1m\n"
        f"frontend up\n  bind 127.0.0.1:{port}\n  http-request return status 200 content-type text/plain string ok\n"
    )
    process = subprocess.Popen([binary.find().path, "-db", "-f", str(tmp_path / "upstream.cfg")])
    yield Server(id=InstanceId("up"), address="127.0.0.1", port=port)
    process.kill()
    process.wait()


class Clients:
    """Keep-alive clients that send one request after another; `lost` are those that got no answer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.counts: Counter[str] = Counter()
        self.stop = asyncio.Event()

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        while not self.stop.is_set():
            head = b"connection: close"
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: goat\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                self.counts["answered" if head.startswith(b"HTTP/1.1 200") else head.decode()] += 1
                await asyncio.sleep(0.001)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.counts["lost"] += 1
            if b"connection: close" in head:
                writer.close()
                reader, writer = await asyncio.open_connection(*self._address)
        writer.close()


async def over_reloads(site, state, upstream, times: int) -> Counter[str]:
    """What the clients got while HAProxy was reloaded so often, or until the first loss."""
    await site.plane.start(state({"v1": 10_000}, v1=[upstream]))
    clients = Clients(site.listen)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(clients.run())
        for _ in range(times):
            answered = clients.counts["answered"]
            await site.plane._process.reload()
            while clients.counts["answered"] < answered + 5 * CLIENTS:
                await asyncio.sleep(0.005)
            if clients.counts["lost"]:
                break
        clients.stop.set()
    return clients.counts


@on_each_release
async def test_keep_alive_clients_lose_nothing_over_reloads(site, make_state, upstream):
    counts = await over_reloads(site, make_state, upstream, RELOADS)

    assert set(counts) == {"answered"}


async def test_without_the_option_they_do(site, make_state, upstream, monkeypatch):
    real = plane.config.render
    monkeypatch.setattr(plane.config, "render", lambda *given: real(*given).replace(OPTION, ""))

    counts = await over_reloads(site, make_state, upstream, RELOADS_AT_MOST)

    assert OPTION not in (site.folder / "haproxy.cfg").read_text()
    assert counts["lost"]


@on_each_release
async def test_a_reload_is_over_when_the_former_worker_takes_no_more(site, make_state, upstream):
    """One that had no processor yet to let go of its listeners would answer new callers from the old file."""
    await site.plane.start(make_state({"v1": 10_000}, v1=[upstream]))
    process = site.plane._process
    (former,) = parse.workers(await process._master_asked("show proc", half_close=True))
    os.kill(former, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            reload = tasks.create_task(process.reload())
            while not await answers(process.admin, besides=former):
                await asyncio.sleep(0.005)
            ended, _ = await asyncio.wait({reload}, timeout=0.3)
            os.kill(former, signal.SIGCONT)
        assert not ended
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(former, signal.SIGCONT)


async def answers(admin, *, besides: int) -> bool:
    """Whether another worker than this one answers."""
    with contextlib.suppress(DataPlaneError):
        return parse.answering(await admin.ask("show info")) != besides
    return False
