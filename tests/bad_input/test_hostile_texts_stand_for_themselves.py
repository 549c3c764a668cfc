"""A hostile text that is taken is given back as it was, and nothing else came to be beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import hostile
import pytest
from conformance.registries import NODE

TEXTS = [
    *filter(None, hostile._NAMES),
    *(f"good{gap}{command}" for gap in hostile._BREAKS for command in hostile.COMMANDS[:2]),
]


class Place(NamedTuple):
    """A field: the request that puts a text there, and which texts an answer then has there."""

    name: str
    path: str
    body: Callable[[str], Any]
    shown: str
    texts: Callable[[Any], list[str]]


def service(**fields):
    return {"Name": "goat", "Check": {"TTL": "60s"}, **fields}


def own_services(found):
    return [each for each in found.values() if each["Service"] != "consul"]


AGENT, SERVICES, CHECKS = "/v1/agent/service/register", "/v1/agent/services", "/v1/agent/checks"
NODES = "/v1/internal/ui/nodes"
PLACES = [
    Place(
        "service name",
        AGENT,
        lambda it: {"Name": it},
        SERVICES,
        lambda it: [x["Service"] for x in own_services(it)],
    ),
    Place(
        "service id",
        AGENT,
        lambda it: service(ID=it),
        SERVICES,
        lambda it: [x["ID"] for x in own_services(it)],
    ),
    Place("tags", AGENT, lambda it: service(Tags=[it]), SERVICES, lambda it: it["goat"]["Tags"]),
    Place(
        "meta name", AGENT, lambda it: service(Meta={it: "x"}), SERVICES, lambda it: list(it["goat"]["Meta"])
    ),
    Place("meta", AGENT, lambda it: service(Meta={"x": it}), SERVICES, lambda it: [it["goat"]["Meta"]["x"]]),
    Place("address", AGENT, lambda it: service(Address=it), SERVICES, lambda it: [it["goat"]["Address"]]),
    Place(
        "check name",
        AGENT,
        lambda it: service(Check={"TTL": "60s", "Name": it}),
        CHECKS,
        lambda it: [it["service:goat"]["Name"]],
    ),
    Place(
        "notes",
        AGENT,
        lambda it: service(Check={"TTL": "60s", "Notes": it}),
        CHECKS,
        lambda it: [it["service:goat"]["Notes"]],
    ),
    Place(
        "node name",
        "/v1/catalog/register",
        lambda it: {"Node": it, "Address": "10.0.0.1"},
        NODES,
        lambda it: [each["Node"] for each in it if each["Node"] != NODE],
    ),
    Place(
        "node meta",
        "/v1/catalog/register",
        lambda it: {"Node": "other", "Address": "10.0.0.1", "NodeMeta": {"x": it}},
        NODES,
        lambda it: [each["Meta"]["x"] for each in it if each["Node"] == "other"],
    ),
    Place(
        "session name",
        "/v1/session/create",
        lambda it: {"Name": it},
        "/v1/session/list",
        lambda it: [x["Name"] for x in it],
    ),
]


def dropping(node):
    """The operations that take the node away; of this registry's own, the services."""
    name = node["Node"]
    if name != NODE:
        return [{"Node": {"Verb": "delete", "Node": {"Node": name}}}]
    ids = [each["ID"] for each in node["Services"] if each["Service"] != "consul"]
    return [
        {"Service": {"Verb": "delete", "Node": name, "Service": {"ID": id_, "Service": "x"}}} for id_ in ids
    ]


@pytest.fixture
def clean(registry):
    """A registry that holds nothing but its own node."""
    yield registry
    for session in registry.get("/v1/session/list").json:
        registry.put(f"/v1/session/destroy/{session['ID']}")
    operations = [drop for node in registry.get(NODES).json for drop in dropping(node)]
    for start in range(0, len(operations), 64):
        assert registry.put("/v1/txn", operations[start : start + 64]).status == 200
    assert [each["Node"] for each in registry.get(NODES).json] == [NODE]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_in_a_body(clean, place):
    taken = set()
    for text in TEXTS:
        status = clean.put(place.path, place.body(text)).status
        assert status in (200, 400, 500)
        if status == 200:
            taken.add(text)
            found = place.texts(clean.get(place.shown).json)
            assert text in found
            assert set(found) <= taken
    assert taken


def test_keys_and_values(registry):
    for text in TEXTS:
        raw = text.encode(errors="surrogatepass")
        answer = registry.put(f"/v1/kv/hostile%2F{quote(raw, safe='')}", raw)
        if answer.status == 200:
            assert f"hostile/{text}" in [
                each["Key"] for each in registry.get("/v1/kv/hostile/", recurse="").json
            ]
            assert registry.get(f"/v1/kv/hostile%2F{quote(raw, safe='')}", raw="").body == raw


def test_events(registry):
    for text in TEXTS:
        try:
            path = f"/v1/event/fire/{quote(text, safe='')}"
        except UnicodeEncodeError:
            continue
        answer = registry.put(path, text.encode())
        if answer.status == 200:
            assert answer.json["Name"] == text
            assert json.loads(registry.get("/v1/event/list").body)[-1]["Name"] == text
