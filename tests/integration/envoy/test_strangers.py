"""Envoys that others started, by the bootstraps of docs/envoy.md: their node id says what they get."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from pathlib import Path
from typing import Self

import aiohttp
import grpc
import msgspec
import pytest
from certificates import Authority
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from ports import free_port

from milkrun.errors import InputRefused
from milkrun.model import ServiceName
from milkrun.router.envoy import outside
from milkrun.router.envoy.binary import find
from milkrun.router.envoy.resources import Kind
from milkrun.router.front import Route
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, App, asked, converge, load, of, state

COW = ServiceName("cow")
WITHIN_S = 20.0
PAGE = (Path(__file__).parents[3] / "docs" / "envoy.md").read_text()
PLAIN, BY_TLS, OWN = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


class Stranger:
    """A real Envoy with the page's bootstrap, in which only addresses and files are others."""

    def __init__(self, folder: Path, text: str, **others: str) -> None:
        self.folder = folder
        for there, here in others.items():
            assert text.count(there) >= 1, there
            text = text.replace(there, here)
        (folder / "stranger.yaml").write_text(text)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        log = (self.folder / "stranger.log").open("wb")
        options = ["--disable-hot-restart", "--log-level", "warning"]
        with log:
            self._process = await asyncio.create_subprocess_exec(
                *(find().path, "-c", str(self.folder / "stranger.yaml"), *options), stdout=log, stderr=log
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def says(self) -> str:
        return (self.folder / "stranger.log").read_text()

    async def serves(self, url: str, path: str = "/", who: str = "", **headers: str) -> None:
        """It answers there, by `who` if that is named."""
        async with aiohttp.ClientSession() as session:
            try:
                async with asyncio.timeout(WITHIN_S):
                    while True:
                        with contextlib.suppress(aiohttp.ClientError):
                            answer = await asked(session, url, path, **headers)
                            if answer[0] == 200 and who in ("", answer[1]):
                                return
                        await asyncio.sleep(0.02)
            except TimeoutError:
                raise AssertionError(self.says()) from None


def told(stand, certificate: str = "", key: str = "", authority: str = "") -> str:
    """The router in the stand's folder is told to answer others; returns where."""
    at = f"127.0.0.1:{free_port()}"
    outside.keep(stand.folder, outside.outside(at, certificate, key, authority))
    return at


def addresses(at: str, listen: str) -> dict[str, str]:
    host, _, port = at.rpartition(":")
    return {"127.0.0.1:9000": listen, "port_value: 18000": f"port_value: {port}", "10.0.0.7": host}


async def test_any_envoy_follows_the_shares_and_serves_on_without_the_router(stand, apps, tmp_path):
    both = state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    at, listen = told(stand), f"127.0.0.1:{free_port()}"
    envoy = await stand.start(both)

    async with Stranger(
        tmp_path, PLAIN, **{"127.0.0.1:9000": listen, "port_value: 18000": f"port_value: {at[10:]}"}
    ) as other:
        await other.serves(f"http://{listen}", who="a1")
        async with load(f"http://{listen}") as callers:
            await callers.more(100)
            assert set(callers.answers) == {"a1", "b1"}
            await converge(envoy, state({"a": 10_000}, a=[apps["a1"].server()]))
            async with asyncio.timeout(WITHIN_S):
                before = -1
                while callers.answers["b1"] != before:  # it follows, a moment after the router's own
                    before = callers.answers["b1"]
                    await callers.more(100)
            await callers.more(100)
            assert callers.answers["b1"] == before
            await stand.leave()
            await callers.more(50)
            await converge(await stand.start(both), both)
            async with asyncio.timeout(WITHIN_S):
                while callers.answers["b1"] == before:
                    await callers.more(5)
        assert callers.failed == {}


async def test_with_certificates_only_those_of_the_authority_are_answered(stand, apps, tmp_path):
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    shown = ours.pair("127.0.0.1")
    at, listen = told(stand, shown.cert, shown.key, ours.file), f"127.0.0.1:{free_port()}"
    await stand.start(of(apps["a1"]))

    async def refused(**credentials) -> str:
        shown = {name: Path(file).read_bytes() for name, file in credentials.items()}
        async with grpc.aio.secure_channel(at, grpc.ssl_channel_credentials(**shown)) as channel:
            return (await stream(channel, "goat")).name

    assert await refused(root_certificates=ours.file) == "UNAVAILABLE"
    other = theirs.pair("shed")
    credentials = {"private_key": other.key, "certificate_chain": other.cert}
    assert await refused(root_certificates=ours.file, **credentials) == "UNAVAILABLE"
    async with grpc.aio.insecure_channel(at) as channel:
        assert (await stream(channel, "goat")).name == "UNAVAILABLE"
    mine = ours.pair("shed")
    files = {
        "/etc/envoy/shed.pem": mine.cert,
        "/etc/envoy/shed.key": mine.key,
        "/etc/envoy/ca.pem": ours.file,
    }
    async with Stranger(tmp_path, BY_TLS, **addresses(at, listen), **files) as found:
        await found.serves(f"http://{listen}", who="a1")


async def test_a_certificate_that_is_renewed_counts_from_the_next_caller_on(stand, apps, tmp_path):
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    shown, later = first.pair("127.0.0.1"), second.pair("127.0.0.1")
    at = told(stand, shown.cert, shown.key, first.file)
    await stand.start(of(apps["a1"]))

    async def answered(authority: Authority) -> object:
        mine = authority.pair("shed")
        credentials = grpc.ssl_channel_credentials(
            Path(authority.file).read_bytes(), Path(mine.key).read_bytes(), Path(mine.cert).read_bytes()
        )
        async with grpc.aio.secure_channel(at, credentials) as channel:
            return await stream(channel, "goat")

    assert await answered(first) == ["goat/1"]
    for new, old in ((later.cert, shown.cert), (later.key, shown.key), (second.file, first.file)):
        Path(old).write_bytes(Path(new).read_bytes())

    assert await answered(second) == ["goat/1"]


async def stream(channel, node: str, listen: str = "") -> object:
    """The names of the clusters that the node is told of, or the status that it gets."""
    stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
    call = stub.StreamAggregatedResources()
    who = {"id": node, "metadata": {"listen": listen}} if listen else {"id": node}
    try:
        await call.write(DiscoveryRequest(node=who, type_url=Kind.CLUSTERS.value))
        answer = await call.read()
        if answer is grpc.aio.EOF:
            return await call.code()
    except grpc.aio.AioRpcError as error:
        return error.code()
    call.cancel()
    return sorted(Cluster.FromString(each.value).name for each in answer.resources)


@pytest.fixture
async def both(stand, apps):
    """A router before goats and cows, which others may ask."""
    routes = (Route(service=COW, path="/cow"), Route(service=GOAT))
    services = {GOAT: TrafficSettings(), COW: TrafficSettings()}
    stand.at = told(stand)
    await stand.start(
        {GOAT: of(apps["a1"]), COW: of(apps["b1"])},
        msgspec.structs.replace(stand.front, name="edge", routes=routes, services=services),
    )
    return stand


async def test_the_node_id_says_what_is_told(both):
    async with grpc.aio.insecure_channel(both.at) as channel:
        assert await stream(channel, "goat") == ["goat/1"]
        assert await stream(channel, "cow/shed-7") == ["cow/1"]
        assert await stream(channel, "edge/x", "127.0.0.1:1") == ["cow/1", "goat/1"]
        for stranger in ("pig", "", "/goat", "goat/1" * 1000):
            assert await stream(channel, stranger) in (grpc.StatusCode.NOT_FOUND, ["goat/1"])
        assert await stream(channel, "pig") is grpc.StatusCode.NOT_FOUND
        assert await stream(channel, "goat", "everywhere") is grpc.StatusCode.INVALID_ARGUMENT


async def test_who_says_that_it_is_the_routers_own_is_not_believed(stand, apps):
    """The router waits for its own Envoy: a stranger that refuses everything must not be taken for it."""
    at = told(stand)
    envoy = await stand.start(of(apps["a1"]))
    async with grpc.aio.insecure_channel(at) as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
        await call.write(DiscoveryRequest(node={"id": stand.front.name}, type_url=Kind.CLUSTERS.value))
        answer = await call.read()
        no = DiscoveryRequest(
            type_url=Kind.CLUSTERS.value, response_nonce=answer.nonce, error_detail={"message": "no"}
        )
        await call.write(no)

        await converge(envoy, of(apps["a2"]))

        call.cancel()


async def test_an_envoy_with_a_listener_of_its_own_asks_for_the_routes(both, apps, tmp_path):
    listen = f"127.0.0.1:{free_port()}"
    texts = {
        "port_value: 9000": f"port_value: {listen[10:]}",
        "port_value: 18000": f"port_value: {both.at[10:]}",
    }
    async with Stranger(tmp_path, OWN, **texts) as other:
        await other.serves(f"http://{listen}", path="/cow", who="a1")


async def test_no_key_of_the_router_leaves_its_host(stand, apps):
    front = msgspec.structs.replace(stand.front, certificates="tls")
    from milkrun.router.envoy.strangers import asked as asks
    from milkrun.router.envoy.strangers import front_for

    with pytest.raises(InputRefused, match="keys stay on its host"):
        front_for(front, asks("goat", "127.0.0.1:9000"))
    assert front_for(front, asks("goat", "")).services == front.services


async def test_an_address_that_is_taken_is_said_and_had_as_soon_as_it_is_free(stand, apps, monkeypatch):
    monkeypatch.setattr("milkrun.router.envoy.ads.AGAIN_S", 0.0)
    other = App("other")
    other.port = free_port()
    await other.start()
    outside.keep(stand.folder, outside.outside(f"127.0.0.1:{other.port}"))
    envoy = await stand.start(of(apps["a1"]))
    assert f"other Envoys cannot ask at 127.0.0.1 port {other.port}" in envoy.behind
    await other.kill()

    while envoy.behind:
        await envoy.of(GOAT).observe()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{other.port}") as channel:
        assert await stream(channel, "goat") == ["goat/1"]


async def test_the_command_line_refuses_an_open_door(tmp_path):
    async def run(*options: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "milkrun",
                "router",
                "lb-goat",
                "--state",
                str(tmp_path / "state"),
                *options,
            ),
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        _, said = await process.communicate()
        return process.returncode, said.decode()

    code, said = await run("--ads", "0.0.0.0:18000")
    assert (code, "reached from other hosts" in said) == (8, True)
    code, said = await run("--ads", "127.0.0.1:18000", "--ads-ca", "ca.pem")
    assert (code, "needs its certificate" in said) == (8, True)
    assert (await run("--ads-ca", "ca.pem"))[0] == 2
    assert not (tmp_path / "state").exists()
