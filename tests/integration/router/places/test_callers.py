"""What instances are told of who called: what the router saw, never what a stranger says of itself."""

from __future__ import annotations

import pytest
from ports import free_port

from milkrun.router.haproxy import entrance
from milkrun.settings.environment import RouteSettings
from milkrun.settings.service import TrafficSettings

FORGED = [
    "X-Forwarded-For: 6.6.6.6",
    "x-forwarded-for: 6.6.6.7",
    "X_Forwarded_For: 6.6.6.8",
    "X.Forwarded-For: 6.6.6.9",
    "X-FORWARDED-PROTO: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Prefix: /evil",
    "X-Forwarded: for=6.6.6.6",
    "Forwarded: for=6.6.6.6",
    "X-Real-IP: 6.6.6.6",
    "X_REAL_IP: 6.6.6.6",
    "X-Milkrun-Version: 6.6.6",
    "x_milkrun_version: 6.6.6",
    "X-Milkrun: 6.6.6",
]
KEPT = ["X-Forwardedly: 1", "X-Really-IP: 2", "X-Milkruns: 3", "X-Request-Id: 4", "my_header: 5"]


@pytest.fixture
def place(stand, instance):
    """Makes a router before `goat` in one of the three places."""

    async def make(kind: str, **settings):
        where = {
            "edge": {"routes": [RouteSettings(service="goat")]},
            "balancer": {"service": "goat"},
            "sidecar": {"sidecar": True},
        }
        site = stand({"goat": TrafficSettings()}, **where[kind], **settings)
        await site.start(goat=[("goat", (await instance("goat")).port)])
        return site

    return make


@pytest.mark.parametrize("kind", ["edge", "balancer"])
async def test_what_strangers_say_of_themselves_is_deleted_and_what_we_saw_is_told(place, kind):
    site = await place(kind)

    found = await site.get("/", *FORGED, *KEPT)

    assert "6.6.6" not in str(found.headers)
    assert "evil" not in str(found.headers)
    assert found.said("x-forwarded-for") == ["127.0.0.1"]
    assert found.said("x-forwarded-proto") == ["http"]
    assert found.said("host") == ["farm"]
    kept = {line.partition(":")[0].lower(): [line[-1]] for line in KEPT}
    assert kept.items() <= found.headers.items()


@pytest.mark.parametrize(
    "named",
    [
        "X-Forwarded-For",
        "close, X-Forwarded-For",
        "x-forwarded-proto,x-milkrun-version",
        "Host",
        "keep-alive",
    ],
)
async def test_no_caller_makes_the_next_hop_drop_what_we_say(place, named):
    site = await place("edge")
    lines = ["GET / HTTP/1.1", "Host: farm", f"Connection: {named}", "X-Forwarded-For: 6.6.6.6"]
    after = ["GET / HTTP/1.1", "Host: farm", "Connection: close"]
    whole = "close" not in named

    status, body = await site.raw("\r\n".join([*lines, "", *(after if whole else []), *([""] * (1 + whole))]))

    assert status == 200
    assert '"x-forwarded-for":["127.0.0.1"]' in body
    assert '"connection"' not in body.lower()
    assert "6.6.6.6" not in body


async def test_a_proxy_of_our_own_in_front_is_believed_and_nobody_else(place):
    ours = await place("edge", trust=["127.0.0.0/8"])
    found = await ours.get(
        "/", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Milkrun-Version: 6"
    )
    assert found.said("x-forwarded-for") == ["9.9.9.9", "127.0.0.1"]
    assert found.said("x-forwarded-proto") == ["https"]
    assert not found.said("x-milkrun-version")
    assert (await ours.get("/")).said("x-forwarded-proto") == ["http"]


async def test_of_a_proxy_elsewhere_nothing_is_believed_here(place):
    theirs = await place("edge", trust=["10.0.0.0/8", "fd00::/8"])

    found = await theirs.get("/", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https")

    assert found.said("x-forwarded-for") == ["127.0.0.1"]
    assert found.said("x-forwarded-proto") == ["http"]


async def test_a_sidecar_keeps_what_a_program_of_its_host_says_of_its_user(place):
    site = await place("sidecar")

    found = await site.get("/goat/x", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https")

    assert found.said("x-forwarded-for") == ["9.9.9.9"], "and nothing of the sidecar's is added"
    assert found.said("x-forwarded-proto") == ["https"]


async def test_a_sidecar_that_others_reach_believes_nobody(place):
    site = await place("sidecar", listen=f"0.0.0.0:{free_port()}")

    found = await site.get("/goat/x", "X-Forwarded-For: 9.9.9.9")

    assert found.said("x-forwarded-for") == ["127.0.0.1"]


async def test_without_the_guard_strangers_are_believed(place, monkeypatch):
    monkeypatch.setattr(entrance, "believed", lambda trust, tls: ["  option forwardfor"])
    site = await place("edge")

    found = await site.get("/", *FORGED)

    assert found.said("x-forwarded-for") == ["6.6.6.6", "6.6.6.7", "127.0.0.1"]
