from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest
from alone import Alone
from fleet import Fleet, a_fleet
from ports import free_port

from milkrun.model import InstanceId
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.diff import diff
from milkrun.testing.registry import embedded_registry

APP = """
import asyncio, os, sys
from aiohttp import web
async def answer(request):
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(request.method + " " + os.environ["NAME"] + "\\n")
    await asyncio.sleep(float(request.query.get("for", 0)))
    return web.Response(text=os.environ["NAME"])
app = web.Application()
app.router.add_route("*", "/{path:.*}", answer)
listener = __import__("socket").socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
web.run_app(app, sock=listener, print=None, handle_signals=True)
"""


class App:
    """An instance in a process of its own, so that it can be killed for real."""

    def __init__(self, name: str, ledger: str) -> None:
        self.name = name
        environment = os.environ | {"NAME": name, "LEDGER": ledger}
        self.process = subprocess.Popen([sys.executable, "-c", APP], stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def server(self, mode: Mode = Mode.SERVE) -> Server:
        return Server(id=InstanceId(self.name), address="127.0.0.1", port=self.port, mode=mode)


class Site:
    """A real HAProxy in front of real instances."""

    def __init__(self, folder, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.listen = ("127.0.0.1", free_port())
        self.stats = ("127.0.0.1", free_port())
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self._stack = stack
        self.plane = self.another_plane()

    def another_plane(self) -> Alone:
        """The router's hold on HAProxy, as a restarted router has it."""
        return Alone(self.folder, "goat", listen=self.listen, stats=self.stats)

    def app(self, name: str) -> App:
        app = App(name, str(self.ledger))
        self._stack.callback(lambda: (app.process.kill(), app.process.wait(), app.process.stdout.close()))
        return app

    async def converge(self, wanted: RoutingState):
        for _ in range(6):
            operations = diff(await self.plane.observe(), wanted)
            await self.plane.apply(operations, wanted)
            if not operations:
                break
        return await self.plane.observe()

    async def ask(self, path: str = "/", method: str = "GET") -> str:
        """One request on a connection of its own: the status and the body's last line."""
        reader, writer = await asyncio.open_connection(*self.listen)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: goat\r\nConnection: close\r\n\r\n".encode())
        reply = (await asyncio.wait_for(reader.read(), 20)).decode()
        writer.close()
        return f"{reply.split()[1]} {reply.splitlines()[-1]}" if reply else "closed"

    def answered(self) -> list[str]:
        return self.ledger.read_text().splitlines()

    @staticmethod
    async def eventually(fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not fact():
                await asyncio.sleep(0.01)


@pytest.fixture
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts from now on is this HAProxy program; the machine's own when it is empty."""
    if request.param:
        monkeypatch.setenv("MILKRUN_HAPROXY", request.param)


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    with contextlib.ExitStack() as stack:
        found = Site(tmp_path, stack)
        yield found
        await found.plane.stop()


def state(shares: dict[str, int], **versions: list[Server]) -> RoutingState:
    return RoutingState(
        shares=shares,
        versions={name: {server.id: server for server in servers} for name, servers in versions.items()},
    )


@pytest.fixture
def make_state() -> Callable[..., RoutingState]:
    return state


@pytest.fixture
async def fleet(tmp_path) -> AsyncIterator[Fleet]:
    """A router's whole surroundings, all real but small. See tests/fleet.py."""
    async with embedded_registry(tmp_path / "registry") as address, a_fleet(tmp_path, address) as found:
        yield found
