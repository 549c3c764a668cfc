"""What a reload may not cost, and what becomes of one that is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import msgspec
import pytest

from milkrun.consul import keys, wire
from milkrun.errors import DataPlaneError
from milkrun.model import CommitId, CommitMark, InstanceId, ServiceName, VersionName
from milkrun.router import standing
from milkrun.router.desired import RoutingState, Server
from milkrun.router.haproxy import config, guard
from milkrun.router.haproxy.config import MASTER_SOCKET
from milkrun.router.haproxy.process import Process
from milkrun.router.haproxy.socket import RuntimeSocket
from milkrun.settings.service import PublishedService, ServiceSettings, TrafficSettings

MARK = CommitMark(commit=CommitId("0" * 40), generation=1)
WITHIN_S = 20.0


def served(*servers: tuple[str, int]) -> RoutingState:
    """One version with all of the traffic."""
    found = {
        InstanceId(name): Server(id=InstanceId(name), address="127.0.0.1", port=port)
        for name, port in servers
    }
    return RoutingState(
        shares={VersionName("v1"): 10_000} if found else {}, versions={VersionName("v1"): found}
    )


# A sidecar's daemon, with the registry


class Farm:
    """A sidecar that the registry tells which services there are."""

    def __init__(self, fleet) -> None:
        self.fleet = fleet
        self.registry = fleet.registry

    async def publish(self, name: str) -> None:
        settings = ServiceSettings(command=["x"])
        data = msgspec.json.encode(PublishedService(mark=MARK, settings=settings))
        await self.registry.put(f"{keys.SERVICES}{name}", data)

    async def withdraw(self, name: str) -> None:
        await self.registry.delete(f"{keys.SERVICES}{name}")

    async def join(self, service: str, port: int) -> None:
        check = wire.TtlCheck(check_id=f"service:{service}-1", name="alive", ttl="600s")
        await self.registry.register(
            wire.Registration(
                id=f"{service}-1",
                name=ServiceName(service),
                address="127.0.0.1",
                port=port,
                tags=["version=1"],
                check=check,
            )
        )
        await self.registry.report(check.check_id, "passing", "")

    async def ask(self, path: str) -> str:
        """The status of one request on a connection of its own; who answered when it is 200."""
        reader, writer = await asyncio.open_connection(*self.fleet.listen)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), WITHIN_S)).decode().partition("\r\n\r\n")
        writer.close()
        status = head.split()[1] if head else "closed"
        return body if status == "200" else status

    async def answers(self, path: str, wanted: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while await self.ask(path) != wanted:
                await asyncio.sleep(0.02)

    async def generations(self) -> int:
        """How often HAProxy's master was reloaded."""
        socket = RuntimeSocket(self.fleet.state, MASTER_SOCKET)
        async with asyncio.timeout(WITHIN_S):
            while (
                True
            ):  # while the master starts itself anew it refuses connections, or says nothing of itself
                with contextlib.suppress(DataPlaneError):
                    reply = await socket.ask("show proc", half_close=True)
                    found = [line.split() for line in reply.splitlines()]
                    if counts := [int(words[2]) for words in found if words[1:2] == ["master"]]:
                        return counts[0]
                await asyncio.sleep(0.01)


@pytest.fixture
async def farm(fleet) -> Farm:
    """Goat is published, has an instance, and goes through a sidecar that is not started yet."""
    await fleet.settle(service="", sidecar=True)
    found = Farm(fleet)
    await found.publish("goat")
    await fleet.goat("a", "0.0.1")
    return found


class Ledger:
    """Callers of goat, with and without keep-alive, while something else changes; each answer is looked at."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self.stop = asyncio.Event()
        self.answered = 0

    async def one_shot(self) -> None:
        while not self.stop.is_set():
            assert await self._farm.ask("/goat/") == "a"
            self.answered += 1

    async def keep_alive(self) -> None:
        writer = None
        while not self.stop.is_set():
            if writer is None:
                reader, writer = await asyncio.open_connection(*self._farm.fleet.listen)
            writer.write(b"GET /goat/ HTTP/1.1\r\nHost: farm\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200")
            assert await reader.readexactly(1) == b"a"
            self.answered += 1
            if b"connection: close" in head:
                writer.close()
                writer = None
            await asyncio.sleep(0.002)
        if writer:
            writer.close()

    async def more(self) -> None:
        count = self.answered
        async with asyncio.timeout(WITHIN_S):
            while self.answered < count + 50:
                await asyncio.sleep(0.005)


async def test_twenty_services_at_once_make_one_reload_and_cost_the_others_nothing(farm, monkeypatch):
    monkeypatch.setattr(
        standing, "SETTLED_S", 1.0
    )  # a busy machine writes twenty keys with pauses in between
    monkeypatch.setattr(standing, "SETTLED_AT_MOST_S", 30.0)
    names = [f"hen-{number}" for number in range(20)]
    async with farm.fleet.router(), asyncio.TaskGroup() as tasks:
        await farm.fleet.serves("a")
        before = await farm.generations()
        ledger = Ledger(farm)
        for _ in range(4):
            tasks.create_task(ledger.one_shot())
            tasks.create_task(ledger.keep_alive())
        await ledger.more()

        for name in names:
            await farm.publish(name)

        for name in names:
            await farm.answers(f"/{name}/", "503")
        assert await farm.generations() == before + 1

        for name in names:
            await farm.withdraw(name)

        for name in names:
            await farm.answers(f"/{name}/", "404")
        assert await farm.generations() == before + 2
        await ledger.more()
        ledger.stop.set()


async def test_without_the_pause_they_make_more(farm, monkeypatch):
    monkeypatch.setattr(standing, "SETTLED_S", 0.0)
    monkeypatch.setattr(standing, "SETTLED_AT_MOST_S", 0.0)
    names = [f"hen-{number}" for number in range(20)]
    async with farm.fleet.router():
        await farm.fleet.serves("a")
        before = await farm.generations()

        for name in names:
            await farm.publish(name)
            await asyncio.sleep(0.01)

        for name in names:
            await farm.answers(f"/{name}/", "503")
        assert await farm.generations() > before + 1


async def test_what_a_service_still_answers_when_it_goes_ends_well(farm):
    hen = await farm.fleet.goat("hen", "1", health="")
    await farm.publish("hen")
    await farm.join("hen", hen.port)
    async with farm.fleet.router(), asyncio.TaskGroup() as tasks:
        await farm.fleet.serves("a")
        await farm.answers("/hen/", "hen")
        hen.gate.clear()
        hen.entered.clear()
        long = tasks.create_task(farm.ask("/hen/"))
        await hen.entered.wait()

        before = await farm.generations()

        await farm.withdraw("hen")

        async with asyncio.timeout(WITHIN_S):
            while await farm.generations() == before:
                await asyncio.sleep(0.01)
        await farm.answers("/hen/", "404")
        assert not long.done()
        hen.gate.set()
        assert await long == "hen"


async def test_news_that_does_not_end_is_acted_on_all_the_same(monkeypatch):
    monkeypatch.setattr(standing, "SETTLED_S", 2 * WITHIN_S)
    monkeypatch.setattr(standing, "SETTLED_AT_MOST_S", 0.1)

    async with asyncio.timeout(WITHIN_S):
        await standing._calm(asyncio.Event())


# A file that is refused


@pytest.fixture
async def site(stand, instance):
    """A sidecar before goat and farmer; `hen` has an instance and is not in its files yet."""
    found = stand(sidecar=True)
    found.ports = {name: (await instance(name)).port for name in ("goat", "farmer", "hen", "goat2")}
    await found.start(goat=[("goat", found.ports["goat"])], farmer=[("farmer", found.ports["farmer"])])
    return found


async def with_hen(site) -> None:
    """The next router of these files, which have a service more."""
    site.traffic = {**site.traffic, "hen": TrafficSettings()}
    site.wanted[ServiceName("hen")] = served(("hen", site.ports["hen"]))
    await site.plane().start(site.wanted)


def files(site) -> dict[str, bytes]:
    """All that HAProxy would start from."""
    return {
        path.name: path.read_bytes()
        for path in site.folder.iterdir()
        if path.suffix in {".map", ".cfg"} and path.is_file()
    }


REAL = config.render


def bogus(*given) -> str:
    return REAL(*given).replace("\nbackend nowhere", "\nbackend nowhere\n  milked", 1)


def emptied(*given) -> str:
    """The grammar is good, and goat has no server."""
    lines = REAL(*given).splitlines(keepends=True)
    return "".join(line for line in lines if "server goat " not in line)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (bogus, "unknown keyword 'milked'"),
        (emptied, "goat's servers are not those that it should have: goat"),
    ],
)
async def test_a_refused_file_changes_nothing_and_what_needs_none_goes_on(site, monkeypatch, broken, why):
    before = files(site)
    pid = msgspec.json.decode((site.folder / "process.json").read_bytes())["pid"]
    monkeypatch.setattr(
        config,
        "render",
        lambda whole, *given: broken(whole, *given) if "hen" in whole.sections else REAL(whole, *given),
    )

    await with_hen(site)

    assert why in site.proxy.behind
    assert files(site) == before
    assert await site.who("/goat/") == "goat"
    assert await site.who("/hen/") == 404

    two = served(("goat", site.ports["goat"]), ("goat2", site.ports["goat2"]))
    await site.wish("goat", two)
    assert {await site.who("/goat/") for _ in range(4)} == {"goat", "goat2"}
    with pytest.raises(DataPlaneError, match=why):
        await site.wish("hen", site.wanted[ServiceName("hen")])

    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(WITHIN_S):
        while await site.proxy.alive():
            await asyncio.sleep(0.01)
    await site.proxy.start(site.wanted)
    assert {await site.who("/goat/") for _ in range(4)} == {"goat", "goat2"}
    assert await site.who("/farmer/") == "farmer"
    assert why in site.proxy.behind

    monkeypatch.setattr(config, "render", REAL)
    site.traffic = {**site.traffic, "goose": TrafficSettings()}
    await site.plane().start(site.wanted)

    assert site.proxy.behind == ""
    assert await site.who("/hen/") == "hen"
    assert await site.who("/goose/") == 503
    assert site.proxy.reloads == 1


async def test_without_the_guard_good_grammar_takes_a_service_away(site, monkeypatch):
    monkeypatch.setattr(guard, "objections", lambda *_: [])
    monkeypatch.setattr(config, "render", emptied)

    await with_hen(site)

    assert await site.who("/hen/") == "hen"
    assert await site.who("/goat/") == 503


async def test_the_same_refused_file_is_tried_again_later_and_not_each_time(site, monkeypatch):
    checks = []
    real = Process.check

    async def counted(self, folder=None) -> None:
        checks.append(time.monotonic())
        await real(self, folder)

    monkeypatch.setattr(Process, "check", counted)
    monkeypatch.setattr(config, "render", bogus)
    await with_hen(site)
    for _ in range(5):
        await site.wish("goat", served(("goat", site.ports["goat"])))
    assert len(checks) == 1

    monkeypatch.setattr(config, "render", REAL)
    site.proxy._refused = msgspec.structs.replace(site.proxy._refused, again_at=time.monotonic())
    await site.wish("goat", served(("goat", site.ports["goat"])))

    assert len(checks) == 2
    assert site.proxy.behind == ""
    assert await site.who("/hen/") == "hen"


async def test_a_router_that_forgot_what_it_served_reloads_only_when_it_knows_again(site):
    """Its files are lost, and HAProxy serves: nothing that is not known yet may be taken for nothing wanted."""
    site.traffic = {**site.traffic, "hen": TrafficSettings()}
    forgotten = {ServiceName(name): RoutingState() for name in site.traffic}
    await site.plane().start(forgotten)

    assert "goat would have no server, and 1 serve it now" in site.proxy.behind
    assert await site.who("/goat/") == "goat"
    await site.wish("goat", site.wanted[ServiceName("goat")])
    assert await site.who("/farmer/") == "farmer", "of which nothing was read yet"
    assert site.proxy.reloads == 0

    await site.wish("farmer", site.wanted[ServiceName("farmer")])

    assert site.proxy.reloads == 1
    assert [await site.who(f"/{name}/") for name in ("goat", "farmer", "hen")] == ["goat", "farmer", 503]


async def test_a_wish_for_nobody_is_followed_by_a_reload_too(site):
    site.traffic = {**site.traffic, "hen": TrafficSettings()}
    await site.plane().start({ServiceName(name): RoutingState() for name in site.traffic})
    for name in ("goat", "farmer"):
        await site.wish(name, RoutingState())

    assert site.proxy.reloads == 1
    assert await site.who("/goat/") == 503


async def test_a_reload_that_was_none_is_noticed(site, monkeypatch):
    async def nothing(_) -> None:
        return None

    site.traffic = {**site.traffic, "hen": TrafficSettings()}
    await site.plane().start({ServiceName(name): RoutingState() for name in site.traffic})
    await site.wish("goat", site.wanted[ServiceName("goat")])
    monkeypatch.setattr(Process, "reload", nothing)

    with pytest.raises(DataPlaneError, match="Can't find backend"):
        await site.proxy.of(ServiceName("farmer")).apply([], site.wanted[ServiceName("farmer")])


async def test_a_router_of_another_release_reloads_once_and_then_no_more(site, monkeypatch):
    """What it writes in another way would else come with some later reload, or never."""

    def later(*given) -> str:
        return REAL(*given).replace("  retries 30", "  retries 29")

    monkeypatch.setattr(config, "render", later)
    for _ in range(2):
        await site.plane().start(site.wanted)
        await site.wish("goat", served(("goat", site.ports["goat"])))
        assert await site.who("/goat/") == "goat"

    assert b"retries 29" in files(site)["haproxy.cfg"]
    assert site.proxy.reloads == 1, "the second one had nothing to do"
    reply = await RuntimeSocket(site.folder, MASTER_SOCKET).ask("show proc", half_close=True)
    assert next(line.split()[2] for line in reply.splitlines() if "master" in line.split()) == "1"
