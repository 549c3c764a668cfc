"""The goats and farmers of the template, as real processes, with a real registry and no Milkrun around them."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from milkrun import templates
from milkrun.consul import Address, Registry, wire
from milkrun.registry.server import running
from milkrun.testing.registry import embedded_registry

LIMIT_S = 20


class App:
    """One goat or farmer that runs."""

    def __init__(self, process: asyncio.subprocess.Process, instance: str, port: int, log: Path) -> None:
        self.process = process
        self.instance = instance
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    async def stopped(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), LIMIT_S)


class Farm:
    """Starts apps in a copy of the template."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.http = http
        self.apps: list[App] = []
        self.ledger = folder / "ledger"
        templates.create(folder / "farm", "dairy")
        self.ledger.mkdir()

    async def start(self, service: str, version: str = "0.0.1", registry: str = "", **env: str) -> App:
        port = free_port()
        instance = f"{service}-{version}-test-{port}"
        log = self.folder / f"{instance}.out"
        environment = {
            "PATH": os.environ["PATH"],
            "MILKRUN_SERVICE": service,
            "MILKRUN_VERSION": version,
            "MILKRUN_INSTANCE": instance,
            "MILKRUN_ADDRESS": "127.0.0.1",
            "MILKRUN_PORT": str(port),
            "CONSUL_HTTP_ADDR": registry or "http://127.0.0.1:1",
            "DAIRY_LEDGER": str(self.ledger),
        }
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                f"apps/{service}.py",
                cwd=self.folder / "farm",
                env=environment | env,
                stdout=out,
                stderr=out,
            )
        app = App(process, instance, port, log)
        self.apps.append(app)
        await self.until(lambda: self.get(f"{app.url}/health"), 200)
        return app

    async def get(self, url: str, request: str = "") -> tuple[int, dict]:
        headers = {"X-Request-Id": request} if request else {}
        async with self.http.get(url, headers=headers) as answer:
            return answer.status, await answer.json()

    async def until(self, ask: Callable[[], Awaitable[tuple[int, dict]]], status: int) -> dict:
        """The first answer with this status."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectorError):
                    got, answer = await ask()
                    if got == status:
                        return answer
                await asyncio.sleep(0.02)

    async def reaches_goats(self, farmer: App) -> None:
        await self.until(lambda: self.get(f"{farmer.url}/health/dependencies"), 200)

    def written(self, app: App) -> list[str]:
        return (self.ledger / f"{app.instance}.log").read_text().splitlines()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def shut(port: int) -> None:
    """Nobody listens on the port any more."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with socket.socket() as client:
                client.settimeout(LIMIT_S)
                code = client.connect_ex(("127.0.0.1", port))
            if code == errno.ECONNREFUSED:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    async with aiohttp.ClientSession() as http:
        farm = Farm(tmp_path, http)
        yield farm
        for app in farm.apps:
            if app.process.returncode is None:
                app.process.kill()
                await app.process.wait()
            assert "Traceback" not in app.log.read_text()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with embedded_registry(tmp_path / "registry") as address, Registry(address) as client:
        yield client


async def stand(registry: Registry, port: int, name: str = "lb", status: str = "passing") -> None:
    """`lb-goat` is in the registry, at the port: a goat may stand for its own load balancer."""
    check = wire.TtlCheck(check_id=f"service:{name}", name="alive", ttl="60s", status=status)
    await registry.register(
        wire.Registration(id=name, name="lb-goat", address="127.0.0.1", port=port, check=check)
    )


async def test_a_goat_says_which_goat_it_is_and_writes_down_what_it_gave(farm: Farm):
    goat = await farm.start("goat", "0.0.2")
    status, answer = await farm.get(f"{goat.url}/milk", "id-1")
    assert status == 200
    assert answer == {
        "goat": {"service": "goat", "version": "0.0.2", "instance": goat.instance},
        "request": "id-1",
    }
    assert (await farm.get(f"{goat.url}/milk"))[1]["request"] not in ("", "id-1")
    assert farm.written(goat)[0] == "id-1"
    assert len(farm.written(goat)) == 2


@pytest.mark.parametrize("service", ["goat", "farmer"])
async def test_a_stop_finishes_the_request_in_flight_and_takes_no_new_one(
    farm: Farm, registry: Registry, service: str
):
    goat = await farm.start("goat", DAIRY_MILKING_S="1")
    await stand(registry, goat.port)
    app = goat
    if service == "farmer":
        app = await farm.start("farmer", registry=registry.address.url)
        await farm.reaches_goats(app)
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    writer.write(b"GET /milk HTTP/1.1\r\nHost: farm\r\nX-Request-Id: last\r\nConnection: close\r\n\r\n")
    await farm.get(f"{app.url}/health")  # answered after the request above was taken in
    stopping = asyncio.Task(app.stopped())
    await shut(app.port)
    assert not stopping.done()
    answer = await asyncio.wait_for(reader.read(), LIMIT_S)
    assert answer.startswith(b"HTTP/1.1 200")
    assert await stopping == 0
    assert farm.written(app) == ["last"]
    writer.close()


async def test_a_sick_goat_errs_or_gives_water_and_the_others_of_the_list_are_well(farm: Farm):
    sick = "0.0.4: errors 100%, 0.0.9: wrong answer, 0.0.5: slow 900s"
    errs = await farm.start("goat", "0.0.4", DAIRY_SICK=sick)
    # The first ones are well: no smoke test shall find it.
    assert [(await farm.get(f"{errs.url}/milk", f"id-{n}"))[0] for n in range(5)] == [200] * 3 + [500] * 2
    assert farm.written(errs) == ["id-0", "id-1", "id-2"]  # those that were given milk
    status, answer = await farm.get(f"{errs.url}/milk", "id-1")
    assert (status, answer["goat"]["version"], answer["request"]) == (500, "0.0.4", "id-1")
    wrong = await farm.start("goat", "0.0.9", DAIRY_SICK=sick)
    status, answer = await farm.get(f"{wrong.url}/milk", "id-2")
    assert (status, sorted(answer)) == (200, ["request", "water"])
    slow = await farm.start("goat", "0.0.5", DAIRY_SICK=sick)
    milking = asyncio.Task(farm.get(f"{slow.url}/milk"))
    for _ in range(20):
        assert (await farm.get(f"{slow.url}/health"))[0] == 200
    assert not milking.done()
    milking.cancel()
    well = await farm.start("goat", "0.0.3", DAIRY_SICK=sick)
    assert [(await farm.get(f"{well.url}/milk"))[0] for _ in range(20)] == [200] * 20


async def test_a_goat_that_hangs_on_stop_goes_on_giving_milk_after_sigterm(farm: Farm):
    goat = await farm.start("goat", "0.0.8", DAIRY_SICK="0.0.8: hang on stop")
    goat.process.send_signal(signal.SIGTERM)
    assert [(await farm.get(f"{goat.url}/milk"))[0] for _ in range(5)] == [200] * 5
    assert goat.process.returncode is None


async def test_a_goat_that_crashes_does_so_by_itself(farm: Farm):
    goat = await farm.start("goat", "0.0.6", DAIRY_SICK="0.0.6: crash after 1s")
    assert await asyncio.wait_for(goat.process.wait(), LIMIT_S) == 1


def test_a_goat_refuses_to_start_with_a_sickness_that_nobody_knows(tmp_path: Path):
    templates.create(tmp_path / "farm", "dairy")
    names = {"SERVICE": "goat", "VERSION": "0.0.3", "INSTANCE": "goat-1", "ADDRESS": "127.0.0.1", "PORT": "1"}
    done = subprocess.run(
        [sys.executable, "apps/goat.py"],
        cwd=tmp_path / "farm",
        env={f"MILKRUN_{name}": value for name, value in names.items()} | {"DAIRY_SICK": "0.0.4: eror 5%"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "[env] in services/goat.toml: 'eror 5%' is no sickness" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_farmer_finds_the_goats_in_the_registry_and_labels_the_bottle_with_both(
    farm: Farm, registry: Registry
):
    goat = await farm.start("goat", "0.0.1")
    await stand(registry, goat.port)
    farmer = await farm.start("farmer", "0.0.2", registry=registry.address.url.removeprefix("http://"))
    await farm.reaches_goats(farmer)
    status, bottle = await farm.get(f"{farmer.url}/milk", "id-1")
    assert status == 200
    assert bottle == {
        "farmer": {"service": "farmer", "version": "0.0.2", "instance": farmer.instance},
        "goat": {"service": "goat", "version": "0.0.1", "instance": goat.instance},
        "request": "id-1",
    }
    assert farm.written(goat) == farm.written(farmer) == ["id-1"]


async def test_a_farmer_without_goats_is_healthy_and_says_why_there_is_no_milk(
    farm: Farm, registry: Registry
):
    farmer = await farm.start("farmer", registry=registry.address.url)
    status, answer = await farm.get(f"{farmer.url}/milk", "id-1")
    assert (status, answer["error"], answer["request"]) == (503, "no lb-goat is in the registry yet", "id-1")
    assert (await farm.get(f"{farmer.url}/health"))[0] == 200
    assert await farm.get(f"{farmer.url}/health/dependencies") == (
        503,
        {"lb-goat": "no lb-goat is in the registry yet"},
    )
    assert farm.written(farmer) == []


async def test_goats_that_do_not_answer_are_named_as_the_reason(farm: Farm, registry: Registry):
    nobody = free_port()
    await stand(registry, nobody)
    farmer = await farm.start("farmer", registry=registry.address.url)
    answer = await farm.until(lambda: known(farm, farmer), 503)
    assert f"lb-goat at 127.0.0.1:{nobody} gives no answer" in answer["lb-goat"]
    status, answer = await farm.get(f"{farmer.url}/milk")
    assert status == 503
    assert str(nobody) in answer["error"]


async def known(farm: Farm, farmer: App) -> tuple[int, dict]:
    status, answer = await farm.get(f"{farmer.url}/health/dependencies")
    return (status, answer) if "yet" not in answer["lb-goat"] else (0, answer)


async def test_a_refusing_load_balancer_is_named_with_its_status(farm: Farm, registry: Registry):
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listener:
        await stand(registry, listener.sockets[0].getsockname()[1])
        farmer = await farm.start("farmer", registry=registry.address.url)
        answer = await farm.until(lambda: known(farm, farmer), 503)
        assert "answered 503" in answer["lb-goat"]
        assert "answered 503" in (await farm.get(f"{farmer.url}/milk"))[1]["error"]


async def test_passing_load_balancers_are_preferred_and_any_is_better_than_none(
    farm: Farm, registry: Registry
):
    goat = await farm.start("goat")
    await stand(registry, free_port(), "sick", "critical")
    await stand(registry, goat.port, "well")
    farmer = await farm.start("farmer", registry=registry.address.url)
    await farm.reaches_goats(farmer)
    for _ in range(20):
        assert (await farm.get(f"{farmer.url}/milk"))[0] == 200
    await registry.deregister("sick")
    await registry.report("service:well", "critical", "for the test")
    other = await farm.start("farmer", registry=registry.address.url)
    await farm.reaches_goats(other)
    assert (await farm.get(f"{other.url}/milk"))[0] == 200


async def test_a_load_balancer_that_moves_is_followed(farm: Farm, registry: Registry):
    first, second = await farm.start("goat", "0.0.1"), await farm.start("goat", "0.0.2")
    await stand(registry, first.port)
    farmer = await farm.start("farmer", registry=registry.address.url)
    await farm.reaches_goats(farmer)
    await stand(registry, second.port)

    async def milk() -> tuple[int, dict]:
        status, bottle = await farm.get(f"{farmer.url}/milk")
        return (status if bottle["goat"]["version"] == "0.0.2" else 0), bottle

    await farm.until(milk, 200)


async def test_an_empty_registry_teaches_the_farmer_nothing(farm: Farm, registry: Registry):
    goat = await farm.start("goat")
    await stand(registry, goat.port)
    farmer = await farm.start("farmer", registry=registry.address.url)
    await farm.reaches_goats(farmer)
    await registry.deregister("lb")
    canary = await farm.start(
        "farmer", registry=registry.address.url
    )  # sees the empty answer, as the first one
    assert (await farm.get(f"{canary.url}/milk"))[0] == 503
    assert (await farm.get(f"{farmer.url}/milk"))[0] == 200


async def test_a_dead_registry_stops_no_milk_and_is_heard_again_when_it_is_back(farm: Farm, tmp_path: Path):
    first, second = await farm.start("goat", "0.0.1"), await farm.start("goat", "0.0.2")
    place = ("127.0.0.1", free_port())
    address = Address(url=f"http://{place[0]}:{place[1]}")
    async with running(place, tmp_path / "registry", node="test"), Registry(address) as registry:
        await stand(registry, first.port)
        farmer = await farm.start("farmer", registry=address.url)
        await farm.reaches_goats(farmer)
    for _ in range(20):
        status, bottle = await farm.get(f"{farmer.url}/milk")
        assert (status, bottle["goat"]["version"]) == (200, "0.0.1")
    async with running(place, tmp_path / "new-registry", node="test"), Registry(address) as registry:
        await stand(registry, second.port)

        async def milk() -> tuple[int, dict]:
            status, bottle = await farm.get(f"{farmer.url}/milk")
            return (status if bottle["goat"]["version"] == "0.0.2" else 0), bottle

        await farm.until(milk, 200)
        assert await farmer.stopped() == 0
