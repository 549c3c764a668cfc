from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from milkrun.agent.daemon import run
from milkrun.agent.units.marked import marked
from milkrun.agent.units.process import kill
from milkrun.consul import Address, Registry, Watch, catalog, keys, wire
from milkrun.consul.client import kv_delete, kv_set
from milkrun.consul.watch import watch_health, watch_prefix
from milkrun.model import AgentReport, CommitMark, Health, RouterReport
from milkrun.registry.server import serve
from milkrun.settings.environment import AgentSettings, Environment, PublishedEnvironment
from milkrun.settings.service import HealthSettings, PublishedService, ServiceSettings, StopSettings

HERE = Path(__file__).parent
LIMIT_S = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Farm:
    """A registry that can be killed, emptied and started again, what git would publish, and agents."""

    def __init__(self, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.tasks = tasks
        self.port = free_port()
        self.address = Address(url=f"http://127.0.0.1:{self.port}")
        self.registry = Registry(self.address)
        self.generation = 0
        self.first_port = random.randrange(20000, 30000, 20)
        self.started: list[asyncio.Task[None]] = []
        self._serving: asyncio.Task[None] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start_registry(self, *, empty: bool = False) -> None:
        if empty:
            shutil.rmtree(self.folder / "registry")
        ready = asyncio.Event()
        self._serving = self.tasks.create_task(
            serve(("127.0.0.1", self.port), self.folder / "registry", node="meadow", ready=ready.set)
        )
        self.started.append(self._serving)
        async with asyncio.timeout(LIMIT_S):
            await ready.wait()

    async def stop_registry(self) -> None:
        self._serving.cancel()
        await asyncio.wait([self._serving])

    # What gitsync would write

    async def publish(
        self,
        service="goat",
        *,
        wish: dict[str, int] | None = None,
        address="127.0.0.1",
        guests: bool = False,
        **settings,
    ) -> None:
        self.generation += 1
        mark = CommitMark(commit="c0ffee", generation=self.generation)
        defaults = {
            "command": ["{python}", str(HERE / "goat.py"), "{address}", "{port}"],
            "health": HealthSettings(interval_s=0.05, timeout_s=2.0, rise=2, fall=2),
            "stop": StopSettings(drain_limit_s=10, stop_limit_s=5),
        }
        ports = (self.first_port, self.first_port + 19)
        place = AgentSettings(address=address, ports=ports, docker=guests)
        environment = PublishedEnvironment(mark=mark, settings=Environment(name="farm", agent=place))
        published = PublishedService(mark=mark, settings=ServiceSettings(**(defaults | settings)))
        await self.registry.put(keys.ENVIRONMENT, msgspec.json.encode(environment))
        await self.registry.put(keys.service_settings(service), msgspec.json.encode(published))
        await self.wish(service, wish or {})

    async def wish(self, service: str, replicas: dict[str, int]) -> None:
        """All keys of the service, as one commit."""
        self.generation += 1
        mark = CommitMark(commit="c0ffee", generation=self.generation)
        old = await self.registry.entries(keys.wish_prefix(service))
        new = {keys.replicas(service, version): str(number).encode() for version, number in replicas.items()}
        new[keys.commit(service)] = msgspec.json.encode(mark)
        operations = [kv_delete(pair.key) for pair in old if pair.key not in new]
        answer = await self.registry.txn([*operations, *(kv_set(key, value) for key, value in new.items())])
        assert not answer.errors

    async def router(self, name: str, **report) -> None:
        fields = {
            "router": name, "service": "goat", "host": "meadow", "listen": "127.0.0.1:1",
            "stats": "127.0.0.1:2", "commit": None, "generation": 1, "applied_at": 0.0, "catalog_index": 1,
        } | report  # fmt: skip
        body = msgspec.json.encode(RouterReport(**fields))
        await self.registry.put(keys.router_report("goat", name), body)

    # What can be seen

    async def instances(self, found, service: str = "goat"):
        """The service's instances as soon as `found` says yes to them."""
        return await self._seen(
            watch_health(self.registry, service),
            lambda answer: catalog.instances(msgspec.json.decode(answer.body, type=list[wire.HealthEntry])),
            found,
        )

    async def passing(self, count: int, service: str = "goat"):
        def so_many(instances):
            return len(instances) == count and all(one.health is Health.PASSING for one in instances)

        return await self.instances(so_many, service)

    async def report(self, found, host: str = "meadow") -> AgentReport:
        def read(answer):
            pairs = [] if answer.status == 404 else msgspec.json.decode(answer.body, type=list[wire.Pair])
            return msgspec.json.decode(pairs[0].data, type=AgentReport) if pairs else None

        def reported(report):
            return report is not None and found(report)

        return await self._seen(Watch(self.registry, f"/v1/kv/{keys.agent_report(host)}"), read, reported)

    async def slots(self, found) -> dict[str, wire.Pair]:
        def read(answer):
            pairs = [] if answer.status == 404 else msgspec.json.decode(answer.body, type=list[wire.Pair])
            return {pair.key.removeprefix(keys.SLOTS): pair for pair in pairs}

        return await self._seen(watch_prefix(self.registry, keys.SLOTS), read, found)

    async def _seen(self, watch, read, found):
        value = "nothing"
        try:
            async with asyncio.timeout(LIMIT_S), contextlib.aclosing(aiter(watch)) as answers:
                async for answer in answers:
                    value = read(answer)
                    if found(value):
                        return value
        except TimeoutError:
            pytest.fail(f"not seen in {LIMIT_S} s; the last was {value}")

    # Agents

    def state(self, host: str) -> Path:
        return self.folder / f"agent-{host}"

    def agent(self, host: str = "meadow", *, handover: asyncio.Event | None = None) -> asyncio.Task[None]:
        self.started.append(
            self.tasks.create_task(
                run(
                    self.address,
                    host=host,
                    state_dir=self.state(host),
                    folder=self.folder,
                    handover=handover or asyncio.Event(),
                )
            )
        )
        return self.started[-1]

    async def stop(self, agent: asyncio.Task[None]) -> None:
        """Cancelled, and waited for until it has ended."""
        agent.cancel()
        async with asyncio.timeout(LIMIT_S):
            await asyncio.wait([agent])

    def agent_process(self, host: str = "meadow") -> subprocess.Popen[bytes]:
        command = [sys.executable, HERE / "agent.py", self.address.url, host, self.state(host), self.folder]
        log = (self.folder / f"agent-{host}.log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        self._processes.append(process)
        return process

    async def crash(self, process: subprocess.Popen[bytes], host: str = "meadow") -> None:
        """The agent is killed, and its last report gone: what is reported from now on is the next one's."""
        process.kill()
        process.wait()
        await self.registry.delete(keys.agent_report(host))

    def running(self, host: str = "meadow") -> dict[str, int]:
        """The pid of each instance that this host's agents started."""
        return {found.instance: found.identity.pid for found in marked(str(self.state(host))) if found.leader}

    def kill(self, instance: str, host: str = "meadow") -> None:
        os.kill(self.running(host)[instance], signal.SIGKILL)

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for state in self.folder.glob("agent-*"):
            for found in marked(str(state)):
                kill(found.identity)


@contextlib.asynccontextmanager
async def _farming(folder: Path, kind: type[Farm] = Farm):
    """A farm with its registry running. At the end nothing of it is left, whatever happened meanwhile."""
    async with asyncio.TaskGroup() as tasks:
        farm = kind(folder, tasks)
        try:
            await farm.start_registry()
            async with farm.registry:
                yield farm
        finally:
            farm.end()
            # The agents first: with the registry gone they would wait for it.
            for task in reversed(farm.started):
                task.cancel()
                await asyncio.wait([task])


@pytest.fixture
def farming(tmp_path):
    """`async with farming() as farm`: entered in the test's own task, because a TaskGroup belongs to one."""
    return functools.partial(_farming, tmp_path)
