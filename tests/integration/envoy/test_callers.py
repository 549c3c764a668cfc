"""Of who called, instances are told what the router saw, and what proxies in `trust` say."""

from __future__ import annotations

import aiohttp
import msgspec
import pytest
from echo import Client, Echo

from milkrun.router.desired import RoutingState
from milkrun.router.diff import diff
from milkrun.settings.service import TrafficSettings

from .conftest import GOAT, asked, state

SAID = {
    "X-Forwarded-For": "9.9.9.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Client-Cert": "Hash=1",
    "X-Real-IP": "9.9.9.9",
    "Forwarded": "for=9.9.9.9",
    "X-Milkrun-Version": "6",
}


@pytest.fixture
async def told(stand):
    """What an instance is told when a caller at `source` says SAID, at a router with this front."""
    app = Echo("a")
    await app.start()

    async def found(source: str, said=SAID, **front) -> dict[str, list[str]]:
        wanted = state({"1": 10_000}, **{"1": [app.server()]})
        await stand.start(wanted, msgspec.structs.replace(stand.front, **front))
        async with Client(stand.front.listen, source=source) as client:
            answer = await client.ask(headers=said)
        return {name.lower(): answer.saw(name.lower()) for name in SAID}

    yield found
    await app.stop()


NOTHING = {name.lower(): [] for name in SAID}
OURS = NOTHING | {"x-forwarded-for": ["127.0.0.1"], "x-forwarded-proto": ["http"]}
THEIRS = {name.lower(): [value] for name, value in SAID.items()}


async def test_a_proxy_of_our_own_in_front_is_believed_and_nobody_else(told):
    trust = ("127.0.0.2/32", "10.0.0.0/8", "fd00::/8")
    believed = {"x-forwarded-for": ["9.9.9.9,127.0.0.2"], "x-milkrun-version": []}
    assert await told("127.0.0.2", trust=trust) == THEIRS | believed
    assert await told("127.0.0.1", trust=trust) == OURS


async def test_what_a_trusted_proxy_does_not_say_is_what_we_saw(told):
    seen = await told("127.0.0.2", said={}, trust=("127.0.0.0/8",))
    assert seen == OURS | {"x-forwarded-for": ["127.0.0.2"]}


async def test_a_sidecar_changes_nothing_whatever_is_trusted(told):
    for trust in ((), ("127.0.0.0/8",)):
        assert await told("127.0.0.1", local=True, trust=trust) == THEIRS


async def test_trust_that_changes_counts_from_the_next_connection_on(told, stand):
    assert (await told("127.0.0.2"))["x-forwarded-for"] == ["127.0.0.2"]
    seen = await told("127.0.0.2", trust=("127.0.0.2/32",))
    assert seen["x-forwarded-for"] == ["9.9.9.9,127.0.0.2"]
    assert diff(await stand.envoys[-1].of(GOAT).observe(), RoutingState()) != []
    assert stand.envoys[-1].behind == ""


async def test_who_sticks_by_address_does_so_behind_a_trusted_proxy_by_what_it_says(stand, apps):
    """Else all users of that proxy were one."""
    services = {GOAT: TrafficSettings(sticky="address")}
    both = state({"a": 5_000, "b": 5_000}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    await stand.start(both, msgspec.structs.replace(stand.front, services=services, trust=("127.0.0.0/8",)))
    async with aiohttp.ClientSession() as session:
        for user in range(40):
            answer = await asked(session, stand.url, "/", X_Forwarded_For=f"9.9.9.{user}")
            assert answer[0] == 200
    assert min(len(apps[name].asked) for name in ("a1", "b1")) > 0
