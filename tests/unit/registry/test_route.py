from __future__ import annotations

import pytest

from milkrun.registry.access.rules import Resource
from milkrun.registry.http.app import ROUTES
from milkrun.registry.http.route import Route, Table


async def handler(engine, request):
    raise NotImplementedError


def route(method, path):
    return Route(method, path, handler, "none", "none")


def test_the_longest_path_wins():
    table = Table(
        [route("GET", "/v1/a/"), route("GET", "/v1/a/b/"), route("PUT", "/v1/a/b/c"), route("GET", "/v1/x")]
    )
    found = {
        path: table.find(path)
        for path in ("/v1/a/q", "/v1/a/b/c", "/v1/a/b/d/e", "/v1/a/", "/v1/a", "/v1/x/y", "/")
    }
    assert found["/v1/a/q"] is not None
    assert found["/v1/a/q"][1] == "q"
    assert found["/v1/a/b/c"][0].allow == "OPTIONS,PUT"
    assert found["/v1/a/b/d/e"][1] == "d/e"
    assert found["/v1/a/"][1] == ""
    assert found["/v1/a"] is found["/v1/x/y"] is found["/"] is None


def test_two_handlers_for_one_route_are_a_mistake():
    with pytest.raises(ValueError, match="two routes"):
        Table([route("GET", "/a"), route("GET", "/a")])


RESOURCES = ("any", "none", *Resource)


def test_every_route_says_what_a_token_must_allow():
    for each in ROUTES:
        assert {*each.resource.split("+")} <= {*RESOURCES}, each
        assert each.access in ("read", "write", "none"), each
        assert (each.access == "none") == (each.resource == "none"), each
        shows = each.method == "GET" or each.path.endswith("/preview/")
        assert each.access != "read" or shows, each
