"""Which service gets a request: every kind of rule, their order, and what no trick with a path changes."""

from __future__ import annotations

import pytest

from milkrun.errors import InputRefused
from milkrun.settings.environment import RouteSettings, load
from milkrun.settings.service import TrafficSettings


def route(service: str, **rules) -> RouteSettings:
    return RouteSettings(service=service, **rules)


async def test_a_path_takes_whole_segments_and_the_first_route_that_fits_wins(edge):
    site = await edge(route("carts", path="/shop/cart"), route("shop", path="/shop"), route("web", path="/"))

    found = {
        path: await site.who(path)
        for path in ("/shop", "/shop/", "/shop/x", "/shopping", "/shop/cart", "/shop/cart/1", "/shop/carts")
    }

    assert found == {
        "/shop": "shop",
        "/shop/": "shop",
        "/shop/x": "shop",
        "/shopping": "web",
        "/shop/cart": "carts",
        "/shop/cart/1": "carts",
        "/shop/carts": "shop",
    }
    assert await site.who("/Shop") == "web", "paths count capitals"


async def test_without_a_route_that_fits_nobody_answers(edge):
    site = await edge(route("shop", path="/shop"))

    assert await site.raw("GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") == (
        404,
        "no route fits this request\n",
    )


async def test_a_host_is_one_in_any_capitals_with_any_port_and_with_the_roots_dot(edge):
    site = await edge(route("shop", host="Shop.example.org"), route("web"))

    for host in ("shop.example.org", "SHOP.Example.ORG", "shop.example.org:8443", "shop.example.org."):
        assert await site.who("/", host=host) == "shop", host
    for host in ("example.org", "xshop.example.org", "shop.example.org.evil", "evil:80", ""):
        assert await site.who("/", host=host) == "web", host


async def test_two_names_of_the_host_in_one_request_are_refused_or_one(edge):
    site = await edge(route("shop", host="shop.example.org"), route("web"))

    assert await site.who("/", "Host: web.example.org", host="shop.example.org") == 400
    assert await site.who("http://shop.example.org/", host="web.example.org") == 400
    assert await site.who("http://shop.example.org/", host="shop.example.org") == "shop"


async def test_methods_and_headers_together(edge):
    site = await edge(
        route("writes", path="/api", methods=["POST", "PUT"]),
        route("beta", headers={"X-Beta": "yes", "X-Farm": "-1"}),
        route("web"),
    )

    assert await site.who("/api", method="POST") == "writes"
    assert await site.who("/api", method="PUT") == "writes"
    assert await site.who("/api", method="GET") == "web"
    assert await site.who("/", "x-beta: yes", "X-FARM: -1") == "beta"
    assert await site.who("/", "x-beta: yes") == "web", "all headers are needed"
    assert await site.who("/", "x-beta: yes!", "X-FARM: -1") == "web"
    assert await site.who("/", "x-beta: Yes", "X-FARM: -1") == "web"


async def test_a_stripped_prefix_is_gone_and_the_query_stays(sidecar):
    for asked, seen in {
        "/goat": "/",
        "/goat/": "/",
        "/goat?name=Homer": "/?name=Homer",
        "/goat/foo?name=Homer&x=/farmer/": "/foo?name=Homer&x=/farmer/",
        "/goat/goat/x": "/goat/x",
        "/goat/a%20b%2Fc;d=1": "/a%20b%2Fc;d=1",
        "/goat//x": "//x",
        "/goat/.well-known/x.y": "/.well-known/x.y",
    }.items():
        found = await sidecar.get(asked)
        assert (found.who, found.path, found.said("x-forwarded-prefix")) == ("goat", seen, ["/goat"]), asked

    assert await sidecar.who("/goats/x") == 404
    assert await sidecar.who("/") == 404


async def test_an_edge_takes_away_a_prefix_of_several_segments_only_where_it_is_told_to(edge):
    site = await edge(route("shop", path="/v1/shop", strip=True), route("web"))

    assert (await site.get("/v1/shop/cart?a=1")).path == "/cart?a=1"
    assert (await site.get("/v1/shopping")).path == "/v1/shopping"


async def test_each_instance_is_asked_below_its_own_path(stand, instance):
    site = stand({"goat": TrafficSettings(path="/v1"), "farmer": TrafficSettings()}, sidecar=True)
    await site.start(
        goat=[("goat", (await instance("goat")).port)], farmer=[("farmer", (await instance("farmer")).port)]
    )

    assert (await site.get("/goat/foo?name=Homer")).path == "/v1/foo?name=Homer"
    assert (await site.get("/goat")).path == "/v1/"
    assert (await site.get("/farmer/foo")).path == "/foo"


TRICKS = [
    "/goat/../farmer/x",
    "/goat/..",
    "/goat/./x",
    "/goat/%2e%2e/farmer",
    "/goat/%2E%2e/farmer",
    "/goat/.%2e/farmer",
    "/goat/..%2ffarmer",
    "/goat/%2e%2e%2Ffarmer",
    "/goat%2f..%2ffarmer",
    "/goat/..;/farmer",
    "/goat/..;a=b/farmer",
    "/goat/x/..%5cfarmer",
    "/goat/%2e",
]


@pytest.mark.parametrize("path", TRICKS)
async def test_a_path_that_goes_up_is_refused(sidecar, path):
    assert await sidecar.who(path) == 400


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("//goat/x", 404),
        ("//farmer/goat/x", 404),
        ("/%67oat/x", 404),
        ("/goat%2fx", 404),
        ("/goat;a=b/x", 404),
        ("/x/goat", 404),
        ("/?/goat/x", 404),
        ("/goat/%252e%252e/farmer", "goat"),
        ("/goat/...", "goat"),
        ("/goat/a..b/..c", "goat"),
        ("/goat/x?next=../../farmer", "goat"),
        ("/goat//farmer/x", "goat"),
    ],
)
async def test_another_spelling_reaches_no_other_route_than_it_says(sidecar, path, who):
    assert await sidecar.who(path) == who


async def test_without_paths_to_decide_by_a_path_is_the_instances_business(stand, instance):
    site = stand({"goat": TrafficSettings()}, service="goat")
    await site.start(goat=[("goat", (await instance("goat")).port)])

    assert (await site.get("/a/../b//c%2e%2e")).path == "/a/../b//c%2e%2e"


EDGE = b"""name = "farm"
[routers.edge]
listen = "127.0.0.1:8000"
stats = "127.0.0.1:8001"
"""


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        (b'routes = [{service = "a"}, {service = "b", path = "/b"}]', "can never fit", 5),
        (b'routes = [{service = "a", path = "/a/../b"}]', "dots", 5),
        (b'routes = [{service = "a"}]\ntrust = ["10.0.0.1/8"]', "is not a network", 6),
        (b'routes = [{service = "a"}]\ncertificates = "a\\nb"', "not the name of a folder", 6),
    ],
)
def test_routes_that_cannot_be_meant_are_refused_with_their_line(text, why, line):
    with pytest.raises(InputRefused, match=why) as refused:
        load(EDGE + text, "milkrun.toml")
    assert refused.value.line == line
