"""The fixtures that py-consul's suite takes its registries from, in place of its own, which start containers.

A pytest plugin: MILKRUN_KIND says which registry, and the next ones start while a test uses the last. Each is a
new one: the embedded registry in a thread of this process, Consul in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import uuid
from collections import deque, namedtuple
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from milkrun.registry.access import own_token
from milkrun.registry.access.authority import Gate, Mode
from milkrun.registry.server import running

Instance = namedtuple("Instance", ["container", "port", "version"])  # noqa: PYI024  their shape
NODE = "the-node"
"""No name that a test of theirs takes for a node of its own."""
VERSION = "1.8.7"
AHEAD = 2
"""How many start while a test uses another one: a start mostly waits."""
Started = tuple[contextlib.ExitStack, int]


def _loaded(name: str, path: Path) -> ModuleType:
    """A module of our tests, which are no package here: theirs has the name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_TESTS = Path(__file__).parents[2]
_registries: Any = _loaded("milkrun_contract_registries", _TESTS / "contract" / "consul" / "conftest.py")
_ports: Any = _loaded("milkrun_ports", _TESTS / "ports.py")
_given: set[int] = set()


def _ports_of_their_own(count: int) -> list[int]:
    """Free ports, none of which was given to another one that may not listen yet."""
    while True:
        found: list[int] = _ports.free_ports(count)
        if _given.isdisjoint(found):
            _given.update(found)
            return found


_registries._free_ports = _ports_of_their_own


@contextlib.contextmanager
def embedded(folder: Path, token: str | None) -> Iterator[int]:
    """The embedded registry serves meanwhile; with a token of its own as with `--acl default`."""
    serving: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    gate = None
    if token:
        file = folder / "token"
        file.write_text(token)
        file.chmod(0o600)
        gate = Gate(Mode.DEFAULT, own_token.digest_at(file))

    async def serve() -> None:
        enough = asyncio.Event()
        async with running(("127.0.0.1", 0), folder / "data", node=NODE, gate=gate) as (engine, address):
            engine.left.add_done_callback(lambda _: enough.set())
            serving.set_result((address[1], asyncio.get_running_loop(), enough))
            await enough.wait()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, enough = serving.result(20)
    try:
        yield port
    finally:
        with contextlib.suppress(RuntimeError):  # it left, and its loop is closed
            loop.call_soon_threadsafe(enough.set)
        thread.join()


@contextlib.contextmanager
def consul(folder: Path, token: str | None) -> Iterator[int]:
    """A real Consul serves meanwhile; with a token that may do everything."""
    acl = {"enabled": True, "tokens": {"master": token}}
    settings = {"primary_datacenter": "dc1", "acl": acl} if token else {}
    with _registries.consul(folder, NODE, **settings) as server:
        yield server.port


class Supply:
    """Some registries of each sort are always on their way."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._starter = stack.enter_context(ThreadPoolExecutor(AHEAD))
        self._coming: dict[str | None, deque[Future[Started]]] = {}
        stack.callback(self._close_spares)

    def _close_spares(self) -> None:
        for each in itertools.chain.from_iterable(self._coming.values()):
            each.result()[0].close()

    def _start(self, token: str | None) -> Started:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        start = embedded if os.environ["MILKRUN_KIND"] == "embedded" else consul
        with contextlib.ExitStack() as held:
            port = held.enter_context(start(folder, token))
            return held.pop_all(), port

    @contextlib.contextmanager
    def fresh(self, token: str | None = None) -> Iterator[int]:
        """One that nobody used yet, with a token of its own or open to all."""
        coming = self._coming.setdefault(token, deque())
        while len(coming) <= AHEAD:
            coming.append(self._starter.submit(self._start, token))
        held, port = coming.popleft().result()
        with held:
            yield port


@pytest.fixture(scope="session")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supply]:
    with contextlib.ExitStack() as stack:
        yield Supply(tmp_path_factory.mktemp("registries"), stack)


@pytest.fixture(scope="session")
def own_secret() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def consul_instance(supply: Supply) -> Iterator[Instance]:
    with supply.fresh() as port:
        yield Instance(None, port, VERSION)


@pytest.fixture
def acl_consul_instance(supply: Supply, own_secret: str) -> Iterator[tuple[Instance, str]]:
    with supply.fresh(own_secret) as port:
        yield Instance(None, port, VERSION), own_secret


@pytest.fixture
def consul_port(consul_instance: Instance) -> tuple[int, str]:
    return consul_instance.port, consul_instance.version
