from __future__ import annotations

import pytest


def external(server, **fields):
    node = server.unique("ext")
    answer = server.put("/v1/catalog/register", {"Node": node, "Address": "10.0.0.9", **fields})
    assert (answer.status, answer.text.strip()) == (200, "true"), answer.text
    return node


def test_datacenters(server):
    assert server.get("/v1/catalog/datacenters").json == ["dc1"]


def test_an_external_service_in_every_answer(server, same):
    name = server.unique("db")
    node = external(
        server,
        Service={"Service": name, "Port": 5432, "Tags": ["main"]},
        Check={"Name": "c", "Status": "passing", "ServiceID": name},
    )
    flat = server.get(f"/v1/catalog/service/{name}")
    same(
        flat.json,
        [
            {
                "ID": "",
                "Node": node,
                "Address": "10.0.0.9",
                "Datacenter": "dc1",
                "ServiceID": name,
                "ServiceName": name,
                "ServiceTags": ["main"],
                "ServiceAddress": "",
                "ServicePort": 5432,
                "ServiceMeta": {},
                "ServiceWeights": {"Passing": 1, "Warning": 1},
                "ServiceEnableTagOverride": False,
            }
        ],
    )
    assert flat.index >= flat.json[0]["ModifyIndex"] > 0
    same(
        server.get(f"/v1/health/service/{name}").json,
        [
            {
                "Node": {"Node": node, "Address": "10.0.0.9", "Datacenter": "dc1", "Meta": None},
                "Service": {"ID": name, "Service": name, "Tags": ["main"], "Port": 5432, "Address": ""},
                "Checks": [{"CheckID": "c", "Status": "passing", "ServiceID": name, "ServiceName": name}],
            }
        ],
    )
    same(
        server.get(f"/v1/catalog/node/{node}").json,
        {"Node": {"Node": node}, "Services": {name: {"Port": 5432}}},
    )
    assert server.get("/v1/catalog/services").json[name] == ["main"]
    assert node in {each["Node"] for each in server.get("/v1/catalog/nodes").json}
    assert [each["CheckID"] for each in server.get(f"/v1/health/node/{node}").json] == ["c"]
    assert "c" in {each["CheckID"] for each in server.get("/v1/health/state/passing").json}


def test_deregistering_bit_by_bit(server):
    name = server.unique("db")
    node = external(
        server,
        Service={"Service": name},
        Checks=[
            {"CheckID": "one", "Name": "1", "Status": "passing", "ServiceID": name},
            {"CheckID": "two", "Name": "2", "Status": "critical"},
        ],
    )
    server.put("/v1/catalog/deregister", {"Node": node, "CheckID": "one"})
    assert [each["CheckID"] for each in server.get(f"/v1/health/node/{node}").json] == ["two"]
    server.put("/v1/catalog/deregister", {"Node": node, "ServiceID": name})
    assert server.get(f"/v1/catalog/node/{node}").json["Services"] == {}
    assert server.get(f"/v1/catalog/service/{name}").json == []
    assert server.put("/v1/catalog/deregister", {"Node": node}).text.strip() == "true"
    assert server.get(f"/v1/catalog/node/{node}").json is None
    assert server.get(f"/v1/health/node/{node}").json == []


def test_a_node_check_counts_for_every_service_on_the_node(server):
    name = server.unique("db")
    external(
        server,
        Service={"Service": name},
        Checks=[
            {"CheckID": "own", "Name": "own", "Status": "passing", "ServiceID": name},
            {"CheckID": "disk", "Name": "disk", "Status": "warning"},
        ],
    )
    found = server.get(f"/v1/health/service/{name}").json
    assert [each["CheckID"] for each in found[0]["Checks"]] == ["disk", "own"]
    assert server.get(f"/v1/health/service/{name}", passing="").json == []
    assert [each["CheckID"] for each in server.get(f"/v1/health/checks/{name}").json] == ["own"]


def test_instances_come_in_order_of_node_and_id_and_are_filtered_by_tag(server):
    name = server.unique("web")
    nodes = [
        external(server, Service={"ID": f"{name}-{n}", "Service": name, "Tags": ["all", f"V{n}"]})
        for n in (2, 1)
    ]
    found = server.get(f"/v1/health/service/{name}").json
    assert [each["Node"]["Node"] for each in found] == sorted(nodes)
    assert [each["Service"]["ID"] for each in server.get(f"/v1/health/service/{name}", tag="v1").json] == [
        f"{name}-1"
    ]
    assert [each["ServiceID"] for each in server.get(f"/v1/catalog/service/{name}", tag="V2").json] == [
        f"{name}-2"
    ]
    assert server.get(f"/v1/health/service/{name}?tag=all&tag=V1").json[0]["Service"]["ID"] == f"{name}-1"
    assert server.get(f"/v1/health/service/{name}", tag="nope").json == []
    assert sorted(server.get("/v1/catalog/services").json[name]) == ["V1", "V2", "all"]


def test_unknown_names_are_empty_and_have_an_index(server):
    for path, empty in (
        ("/v1/health/service/nope", []),
        ("/v1/health/checks/nope", []),
        ("/v1/health/node/nope", []),
        ("/v1/health/state/bogus", []),
        ("/v1/catalog/service/nope", []),
        ("/v1/catalog/node/nope", None),
    ):
        answer = server.get(path)
        assert (answer.status, answer.json) == (200, empty), path
        assert answer.index >= 1, path


def test_the_own_node_has_its_own_check(server, same):
    found = server.get("/v1/health/node/n1").json
    same(
        next(each for each in found if each["CheckID"] == "serfHealth"),
        {
            "Node": "n1",
            "Name": "Serf Health Status",
            "Status": "passing",
            "Output": "Agent alive and reachable",
            "ServiceID": "",
            "Type": "",
        },
    )
    node = server.get("/v1/catalog/node/n1").json
    assert len(node["Node"]["ID"]) == 36
    assert node["Services"]["consul"]["Service"] == "consul"


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/catalog/register", {"Node": "x"}, 500, "Must provide address if SkipNodeUpdate is not set"),
        ("/v1/catalog/register", {"Address": "10.0.0.9"}, 500, "Must provide node"),
        (
            "/v1/catalog/register",
            {"Node": "x", "Address": "10.0.0.9", "Datacenter": "dc2"},
            500,
            "No path to datacenter",
        ),
        ("/v1/catalog/deregister", {"Node": "x", "Datacenter": "dc2"}, 500, "No path to datacenter"),
        ("/v1/catalog/deregister", {"Node": "nope", "Datacenter": "dc1"}, 200, "true"),
        ("/v1/catalog/deregister", {}, 500, "Must provide node"),
        ("/v1/catalog/deregister", {"Node": "nope"}, 200, "true"),
    ],
)
def test_what_is_refused_and_with_which_words(server, path, body, status, text):
    answer = server.put(path, body)
    assert (answer.status, answer.text.strip()) == (status, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/health/service/", "Missing service name"),
        ("/v1/health/checks/", "Missing service name"),
        ("/v1/health/node/", "Missing node name"),
        ("/v1/health/state/", "Missing check state"),
        ("/v1/catalog/service/", "Missing service name"),
        ("/v1/catalog/node/", "Missing node name"),
        ("/v1/health/service/x?passing=bogus", "Invalid value for ?passing"),
    ],
)
def test_names_that_are_missing(server, path, text):
    answer = server.get(path)
    assert (answer.status, answer.text.strip()) == (400, text)
