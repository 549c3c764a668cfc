"""Transactions over nodes, services and checks."""

from __future__ import annotations

import pytest


def txn(server, *operations):
    return server.put("/v1/txn", list(operations))


def done(server, *operations):
    answer = txn(server, *operations)
    assert answer.status == 200, answer.text
    return answer.json["Results"]


def refusal(server, *operations):
    answer = txn(server, *operations)
    assert answer.status == 409, answer.text
    assert answer.json["Results"] is None
    return [(each["OpIndex"], each["What"]) for each in answer.json["Errors"]]


def node_op(verb, name, **fields):
    return {"Node": {"Verb": verb, "Node": {"Node": name, **fields}}}


def service_op(verb, node, **fields):
    return {"Service": {"Verb": verb, "Node": node, "Service": fields}}


def check_op(verb, node, **fields):
    return {"Check": {"Verb": verb, "Check": {"Node": node, **fields}}}


@pytest.fixture
def node(server):
    """A node with a service `db` and its check `c`."""
    name = server.unique("far")
    done(
        server,
        node_op("set", name, Address="10.0.0.9", Meta={"a": "b"}),
        service_op("set", name, ID="db", Service=f"{name}-db", Port=5, Tags=["t"]),
        check_op("set", name, CheckID="c", Name="c", Status="passing", ServiceID="db", Output="fine"),
    )
    return name


def test_what_is_set_is_in_the_catalog(server, node, same):
    same(server.get(f"/v1/catalog/node/{node}").json["Node"], {"Address": "10.0.0.9", "Meta": {"a": "b"}})
    found = server.get(f"/v1/health/service/{node}-db").json
    same(
        found,
        [
            {
                "Node": {"Node": node},
                "Service": {"ID": "db", "Port": 5, "Tags": ["t"], "Weights": {"Passing": 1, "Warning": 1}},
                "Checks": [
                    {
                        "CheckID": "c",
                        "Status": "passing",
                        "Output": "fine",
                        "ServiceName": f"{node}-db",
                        "ServiceTags": ["t"],
                    }
                ],
            }
        ],
    )


def test_each_result_shows_what_it_set_with_one_index(server, same):
    name = server.unique("far")
    results = done(
        server,
        node_op("set", name, Address="10.0.0.9"),
        service_op("set", name, Service="web"),
        check_op("set", name, Name="c", ServiceID="web"),
        {"KV": {"Verb": "set", "Key": name, "Value": "eA=="}},
    )
    same(
        results,
        [
            {"Node": {"Node": name, "ID": "", "Datacenter": "dc1", "TaggedAddresses": None, "Meta": None}},
            {"Service": {"ID": "web", "Service": "web", "EnableTagOverride": False}},
            {"Check": {"CheckID": "c", "Status": "critical", "ServiceName": "web"}},
            {"KV": {"Key": name, "Value": None}},
        ],
    )
    indexes = {next(iter(each.values()))["ModifyIndex"] for each in results}
    assert len(indexes) == 1


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("Node", lambda node: node_op("get", node)),
        ("Service", lambda node: service_op("get", node, ID="db")),
        ("Check", lambda node: check_op("get", node, CheckID="c")),
    ],
)
def test_get_shows_it(server, node, kind, operation):
    (result,) = done(server, operation(node))
    assert result[kind]["CreateIndex"] > 0


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda _: node_op("get", "nope"), 'node "nope" doesn\'t exist'),
        (lambda _: node_op("set", "", Address="x"), "Must provide node"),
        (lambda _: node_op("set", "x", Address="x", ID="short"), "Bad node ID: uuid string is wrong length"),
        (
            lambda node: node_op("cas", node, Address="x", ModifyIndex=1),
            'failed to set node "{}", index is stale',
        ),
        (lambda node: node_op("cas", node, Address="x"), 'failed to set node "{}", index is stale'),
        (
            lambda _: node_op("cas", "nope", Address="x", ModifyIndex=1),
            'failed to set node "nope", index is stale',
        ),
        (
            lambda node: node_op("delete-cas", node, ModifyIndex=1),
            'failed to delete node "{}", index is stale',
        ),
        (
            lambda _: node_op("delete-cas", "nope", ModifyIndex=1),
            'failed to delete node "nope", index is stale',
        ),
        (lambda node: node_op("bogus", node), 'unknown Node verb "bogus"'),
        (lambda node: service_op("get", node, ID="nope"), 'service "nope" on node "{}" doesn\'t exist'),
        (lambda _: service_op("get", "nope", ID="db"), 'service "db" on node "nope" doesn\'t exist'),
        (lambda _: service_op("set", "nope", Service="web"), "Missing node registration"),
        (lambda node: service_op("set", node, ID="web"), "Must provide service name with ID"),
        (lambda node: service_op("delete", node, ID="db"), "Must provide service name with ID"),
        (
            lambda node: service_op("cas", node, ID="db", Service="web", ModifyIndex=1),
            'failed to set service "db" on node "{}", index is stale',
        ),
        (
            lambda node: service_op("cas", node, ID="new", Service="web", ModifyIndex=1),
            'failed to set service "new" on node "{}", index is stale',
        ),
        (
            lambda node: service_op("delete-cas", node, ID="db", Service="web", ModifyIndex=1),
            'failed to delete service "db" on node "{}", index is stale',
        ),
        (lambda node: service_op("bogus", node, Service="web"), 'unknown Service verb "bogus"'),
        (lambda node: check_op("get", node, CheckID="nope"), 'check "nope" on node "{}" doesn\'t exist'),
        (lambda _: check_op("set", "nope", Name="c"), "Missing node registration"),
        (lambda node: check_op("set", node, Name="c", ServiceID="nope"), "Missing service registration"),
        (
            lambda node: check_op("cas", node, CheckID="c", Name="c", ModifyIndex=1),
            'failed to set check "c" on node "{}", index is stale',
        ),
        (
            lambda node: check_op("delete-cas", node, CheckID="c", ModifyIndex=1),
            'failed to delete check "c" on node "{}", index is stale',
        ),
        (
            lambda node: check_op("delete-cas", node, CheckID="nope", ModifyIndex=1),
            'failed to delete check "nope" on node "{}", index is stale',
        ),
        (lambda node: check_op("bogus", node, CheckID="c"), 'unknown Check verb "bogus"'),
    ],
)
def test_with_which_words_an_operation_is_refused(server, node, operation, words):
    assert refusal(server, operation(node)) == [(0, words.format(node))]


def test_cas_with_the_index_that_is_there(server, node):
    index = server.get(f"/v1/catalog/node/{node}").json["Node"]["ModifyIndex"]
    done(server, node_op("cas", node, Address="10.0.0.10", ModifyIndex=index))
    assert server.get(f"/v1/catalog/node/{node}").json["Node"]["Address"] == "10.0.0.10"
    services = server.get(f"/v1/catalog/node/{node}").json["Services"]
    done(
        server,
        service_op(
            "cas", node, ID="db", Service=f"{node}-db", Port=6, ModifyIndex=services["db"]["ModifyIndex"]
        ),
    )
    assert server.get(f"/v1/catalog/service/{node}-db").json[0]["ServicePort"] == 6
    (check,) = server.get(f"/v1/health/node/{node}").json
    done(
        server,
        check_op(
            "cas",
            node,
            CheckID="c",
            Name="c",
            Status="warning",
            ServiceID="db",
            ModifyIndex=check["ModifyIndex"],
        ),
    )
    (check,) = server.get(f"/v1/health/node/{node}").json
    assert check["Status"] == "warning"


def test_cas_0_is_for_what_is_not_there(server, node):
    new = server.unique("far")
    done(
        server,
        node_op("cas", new, Address="10.0.0.9"),
        service_op("cas", node, ID="new", Service="new"),
        check_op("cas", node, CheckID="new", Name="new", Status="passing"),
    )
    assert server.get(f"/v1/catalog/node/{new}").json
    assert "new" in server.get(f"/v1/catalog/node/{node}").json["Services"]
    assert refusal(server, check_op("cas", node, CheckID="new", Name="new"))


def test_delete_takes_what_stands_on_it_along(server, node):
    assert done(server, service_op("delete", node, ID="db", Service=f"{node}-db")) == []
    assert server.get(f"/v1/health/node/{node}").json == []
    assert server.get(f"/v1/catalog/service/{node}-db").json == []
    done(server, check_op("set", node, CheckID="own", Name="own", Status="passing"))
    assert done(server, node_op("delete", node)) == []
    assert server.get(f"/v1/catalog/node/{node}").json is None
    assert server.get(f"/v1/health/node/{node}").json == []


def test_delete_cas_with_the_index_that_is_there(server, node):
    (check,) = server.get(f"/v1/health/node/{node}").json
    done(server, check_op("delete-cas", node, CheckID="c", ModifyIndex=check["ModifyIndex"]))
    service = server.get(f"/v1/catalog/node/{node}").json["Services"]["db"]
    done(
        server,
        service_op("delete-cas", node, ID="db", Service=f"{node}-db", ModifyIndex=service["ModifyIndex"]),
    )
    index = server.get(f"/v1/catalog/node/{node}").json["Node"]["ModifyIndex"]
    done(server, node_op("delete-cas", node, ModifyIndex=index))
    assert server.get(f"/v1/catalog/node/{node}").json is None


def test_deleting_what_is_not_there_is_nothing(server, node):
    operations = (
        node_op("delete", "nope"),
        service_op("delete", node, ID="nope", Service="nope"),
        check_op("delete", node, CheckID="nope"),
    )
    assert done(server, *operations) == []


def test_all_or_nothing_over_keys_and_catalog(server, node):
    key = server.unique("key")
    errors = refusal(
        server,
        {"KV": {"Verb": "set", "Key": key, "Value": "eA=="}},
        node_op("set", node, Address="10.9.9.9"),
        service_op("delete", node, ID="db", Service=f"{node}-db"),
        node_op("get", "nope"),
    )
    assert errors == [(3, 'node "nope" doesn\'t exist')]
    assert server.get(f"/v1/kv/{key}").status == 404
    assert server.get(f"/v1/catalog/node/{node}").json["Node"]["Address"] == "10.0.0.9"
    assert "db" in server.get(f"/v1/catalog/node/{node}").json["Services"]


def test_later_operations_see_what_earlier_ones_did(server):
    name = server.unique("far")
    results = done(
        server,
        node_op("set", name, Address="10.0.0.9"),
        service_op("set", name, ID="a", Service="web"),
        service_op("set", name, ID="b", Service="web"),
        service_op("delete", name, ID="a", Service="web"),
        check_op("set", name, CheckID="c", Name="c", ServiceID="b"),
        node_op("get", name),
    )
    assert [next(iter(each)) for each in results] == ["Node", "Service", "Service", "Check", "Node"]
    assert list(server.get(f"/v1/catalog/node/{name}").json["Services"]) == ["b"]
    gone = refusal(server, node_op("delete", name), service_op("set", name, ID="b", Service="web"))
    assert gone == [(1, "Missing node registration")]


def test_the_watchers_of_what_changed_wake(server, node):
    service, other = f"/v1/health/service/{node}-db", f"/v1/catalog/node/{server.unique('other')}"
    parked = server.parked(service, server.get(service).index)
    idle = server.parked(other, server.get(other).index, wait="1s")
    assert parked.still_waits()
    done(server, check_op("set", node, CheckID="c", Name="c", Status="critical", ServiceID="db"))
    assert parked.result().json[0]["Checks"][0]["Status"] == "critical"
    assert idle.still_waits(0.1)
    assert idle.result().json is None


@pytest.mark.parametrize("kind", ["Session", "Intention", "Bogus"])
def test_an_operation_of_an_unknown_kind_is_not_passed_over(server, kind):
    key = server.unique("key")
    answer = txn(server, {"KV": {"Verb": "set", "Key": key, "Value": "eA=="}}, {kind: {"Verb": "set"}})
    assert answer.status == 400
    assert answer.text.strip() == f'Failed to parse body: json: unknown field "{kind}"'
    assert server.get(f"/v1/kv/{key}").status == 404


def test_with_two_kinds_in_one_operation_the_first_counts(server, node):
    key = server.unique("key")
    (result,) = done(server, {"KV": {"Verb": "set", "Key": key, "Value": "eA=="}, **node_op("get", node)})
    assert list(result) == ["KV"]


def test_an_operation_without_a_kind_is_nothing(server):
    assert done(server, {}) == []
