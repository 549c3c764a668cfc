"""A router whose token is narrowed while it runs: it doubts what it is shown, and keeps what it serves (I2).

Everything is real: the registry with `closed` access, the policy that is changed through its API, HAProxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
import pytest
from fleet import Fleet, a_fleet

from milkrun.consul import Address
from milkrun.registry.access.authority import Gate, Mode
from milkrun.registry.access.rules import SINGLE, Resource
from milkrun.registry.access.tokens import ANONYMOUS_ID, digest_of
from milkrun.registry.server import running

OWN = "own-secret-own-secret-own-secret-"
ALL = "\n".join(f'{kind}_prefix "" {{ policy = "write" }}' for kind in sorted(set(Resource) - SINGLE))


class Rights(NamedTuple):
    """What who shows no token may do: the fleet's router shows none."""

    url: str
    policy: str

    async def become(self, rules: str) -> None:
        await call(self.url, f"/v1/acl/policy/{self.policy}", {"Name": "router", "Rules": rules})


async def call(url: str, path: str, body: object) -> dict[str, str]:
    headers = {"X-Consul-Token": OWN}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.put(url + path, json=body) as reply,
    ):
        assert reply.status == 200, await reply.text()
        return dict(await reply.json())


@pytest.fixture
async def guarded(tmp_path) -> AsyncIterator[tuple[Fleet, Rights]]:
    gate = Gate(Mode.CLOSED, digest_of(OWN.encode()))
    async with running(("127.0.0.1", 0), tmp_path / "registry", node="n1", gate=gate) as (_, (host, port)):
        url = f"http://{host}:{port}"
        made = await call(url, "/v1/acl/policy", {"Name": "router", "Rules": ALL})
        await call(url, f"/v1/acl/token/{ANONYMOUS_ID}", {"Policies": [{"ID": made["ID"]}]})
        async with a_fleet(tmp_path, Address(url=url, token=OWN)) as fleet:
            yield fleet, Rights(url, made["ID"])


NARROWED = {
    "no instance": ('service "goat" { policy = "deny" }', "/v1/health/service/goat"),
    "some weights": ('key_prefix "goat/version=0.0.1" { policy = "deny" }', "/v1/kv/goat/"),
}


@pytest.mark.parametrize(("rule", "hidden"), NARROWED.values(), ids=NARROWED.keys())
async def test_what_a_narrowed_token_hides_goes_on_serving(guarded, rule, hidden):
    fleet, rights = guarded
    for name, version in (("a", "0.0.1"), ("b", "0.0.1"), ("c", "0.0.2")):
        await fleet.goat(name, version)
    await fleet.weigh(1, {"0.0.1": 50, "0.0.2": 50})
    async with fleet.router():
        await fleet.serves("a", "b", "c")

        await rights.become(f"{ALL}\n{rule}")
        # Its watches see the narrowed answer at their next wake: this change is one of what each watches.
        await fleet.goat("d", "0.0.1")
        await fleet.weigh(2, {"0.0.1": 60, "0.0.2": 40})
        await fleet.settle()
        asked = fleet.between.log.count(("GET", hidden))
        async with asyncio.timeout(20):
            # It doubts the answer, and asks again.
            while fleet.between.log.count(("GET", hidden)) < asked + 2:
                await asyncio.sleep(0.01)
        assert {"a", "b", "c"} <= set(await fleet.answers())

        await rights.become(ALL)
        await fleet.weigh(3, {"0.0.1": 100, "0.0.2": 0})
        report = await fleet.reported(lambda report: report.generation == 3 and "d" in report.instances)
        assert report.held == []
