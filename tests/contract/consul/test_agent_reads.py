"""What agents say of themselves and of their services, and what a cluster of one says to who asks for more."""

from __future__ import annotations

import re
import time

import pytest


@pytest.fixture
def name(server):
    """A service with one passing check."""
    name = server.unique("svc")
    register(server, name)
    return name


def register(server, name, **fields):
    body = {"Name": name, "Port": 80, "Check": {"TTL": "600s", "Status": "passing"}, **fields}
    assert server.put("/v1/agent/service/register", body).status == 200


# One service, by its hash


def hash_of(answer):
    assert answer.status == 200, answer.text
    assert answer.headers["X-Consul-ContentHash"] == answer.json["ContentHash"]
    return answer.json["ContentHash"]


def test_a_service_by_its_id(server, name, same):
    answer = server.get(f"/v1/agent/service/{name}")
    wanted = {"ID": name, "Service": name, "Port": 80, "Tags": [], "Meta": {}, "EnableTagOverride": False}
    same(answer.json, {**wanted, "Weights": {"Passing": 1, "Warning": 1}})
    assert "CreateIndex" not in answer.json
    assert hash_of(answer)


def test_the_hash_is_of_the_content(server, name):
    before = hash_of(server.get(f"/v1/agent/service/{name}"))
    register(server, name)
    assert hash_of(server.get(f"/v1/agent/service/{name}")) == before
    register(server, name, Tags=["a"])
    after = hash_of(server.get(f"/v1/agent/service/{name}"))
    assert after != before
    register(server, name)
    assert hash_of(server.get(f"/v1/agent/service/{name}")) == before


def test_with_the_hash_it_waits_for_another_content(server, name):
    path = f"/v1/agent/service/{name}"
    known = hash_of(server.get(path))
    parked = server.parked(path, 0, hash=known)
    assert parked.still_waits()
    server.put(f"/v1/agent/check/warn/service:{name}")
    assert parked.still_waits()
    register(server, name, Port=81)
    answer = parked.result()
    assert answer.json["Port"] == 81
    assert hash_of(answer) != known


def test_a_service_that_goes_wakes_who_waits_with_its_hash(server, name):
    path = f"/v1/agent/service/{name}"
    parked = server.parked(path, 0, hash=hash_of(server.get(path)))
    assert parked.still_waits()
    server.put(f"/v1/agent/service/deregister/{name}")
    answer = parked.result()
    assert (answer.status, answer.text.strip()) == (404, f"unknown service ID: {name}")


def test_another_hash_is_answered_at_once_and_the_same_one_after_the_wait(server, name):
    path = f"/v1/agent/service/{name}"
    known = hash_of(server.get(path))
    assert hash_of(server.get(path, hash="bogus", wait="20s")) == known
    assert hash_of(server.get(path, hash=known, wait="100ms")) == known
    refused = server.get(path, hash=known, wait="bogus")
    assert (refused.status, refused.text.strip()) == (400, "Invalid wait time")


@pytest.mark.parametrize("rest", ["nope", ""])
def test_an_id_that_is_not_there(server, rest):
    answer = server.get(f"/v1/agent/service/{rest}")
    assert (answer.status, answer.text.strip()) == (404, f"unknown service ID: {rest}".strip())


# Health, as one word


@pytest.mark.parametrize(
    "stands",
    [("pass", 200, "passing"), ("warn", 429, "warning"), ("fail", 503, "critical")],
)
@pytest.mark.parametrize("by", ["id", "name"])
def test_health_as_status_json_and_text(server, name, by, stands):
    verb, status, word = stands
    server.put(f"/v1/agent/check/{verb}/service:{name}")
    path = f"/v1/agent/health/service/{by}/{name}"
    for params in ({}, {"format": "json"}, {"format": "bogus"}):
        answer = server.get(path, **params)
        assert answer.status == status
        shown = answer.json[0] if by == "name" else answer.json
        assert shown["AggregatedStatus"] == word
        assert shown["Service"]["ID"] == name
        assert [each["CheckID"] for each in shown["Checks"]] == [f"service:{name}"]
        assert answer.headers["X-Consul-Reason"] == word
    text = server.get(path, format="text")
    assert (text.status, text.text.strip()) == (status, word)


def test_maintenance_is_critical_and_says_so(server, name):
    server.put(f"/v1/agent/service/maintenance/{name}", enable="true")
    for by in ("id", "name"):
        answer = server.get(f"/v1/agent/health/service/{by}/{name}", format="text")
        assert (answer.status, answer.text.strip()) == (503, "maintenance")


def test_the_worst_instance_speaks_for_the_name(server, name):
    register(server, name, ID=f"{name}-2", Check={"TTL": "600s", "Status": "warning"})
    answer = server.get(f"/v1/agent/health/service/name/{name}", format="text")
    assert (answer.status, answer.text.strip()) == (429, "warning")


@pytest.mark.parametrize(
    ("path", "words"), [("id/nope", "ServiceId nope not found"), ("name/nope", "ServiceName nope Not Found")]
)
def test_health_of_what_is_not_there(server, path, words):
    answer = server.get(f"/v1/agent/health/service/{path}")
    assert answer.status == 404
    assert answer.headers["X-Consul-Reason"] == words
    text = server.get(f"/v1/agent/health/service/{path}", format="text")
    assert (text.status, text.text.strip().strip('"')) == (404, words)


@pytest.mark.parametrize(("path", "words"), [("id/", "Missing serviceID"), ("name/", "Missing service Name")])
def test_health_of_nothing(server, path, words):
    answer = server.get(f"/v1/agent/health/service/{path}")
    assert (answer.status, answer.text.strip()) == (500, f"Bad request: {words}")


# Checks


def test_the_agents_checks_have_no_index(server, name, same):
    same(
        server.get("/v1/agent/checks").json[f"service:{name}"],
        {
            "CreateIndex": 0,
            "ModifyIndex": 0,
            "Node": "n1",
            "ServiceName": name,
            "Type": "ttl",
            "Definition": {},
        },
    )


# Tagged addresses


@pytest.mark.parametrize("fields", [("Address", "Port"), ("address", "port")])
def test_tagged_addresses_are_shown_as_consul_writes_them(server, fields, same):
    name = server.unique("svc")
    address, port = fields
    register(server, name, TaggedAddresses={"lan": {address: "1.2.3.4", port: 99}, "x": {address: "1.2.3.5"}})
    wanted = {"lan": {"Address": "1.2.3.4", "Port": 99}, "x": {"Address": "1.2.3.5", "Port": 0}}
    same(server.get(f"/v1/agent/service/{name}").json["TaggedAddresses"], wanted)
    found = server.wait_until("registered", f"/v1/health/service/{name}", lambda it: it.json).json
    same(found[0]["Service"]["TaggedAddresses"], wanted)


# A cluster of one


def test_members(server, same):
    for params in ({}, {"segment": "_all"}, {"segment": ""}):
        same(
            server.get("/v1/agent/members", **params).json,
            [{"Name": "n1", "Addr": "127.0.0.1", "Status": 1, "Tags": {"role": "consul", "dc": "dc1"}}],
        )
    refused = server.get("/v1/agent/members", segment="x")
    assert refused.status == 500
    assert refused.text.strip() == "Network segments are not supported in this version of Consul"


@pytest.mark.parametrize("name", ["nope", ""])
def test_nobody_is_forced_to_leave_who_is_not_there(server, name):
    answer = server.put(f"/v1/agent/force-leave/{name}")
    assert (answer.status, answer.text.strip()) == (500, f"agent: No node found with name '{name}'")


def test_nobody_is_joined_at_an_address_where_nobody_is(server):
    answer = server.put("/v1/agent/join/127.0.0.1:1")
    assert answer.status == (400 if server.kind == "embedded" else 500)
    assert "join" in answer.text


def test_metrics(server):
    answer = server.get("/v1/agent/metrics")
    assert answer.status == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", answer.json["Timestamp"])
    gauges = {each["Name"]: each for each in answer.json["Gauges"]}
    end = time.monotonic() + 30
    while "consul.raft.applied_index" not in gauges and time.monotonic() < end:
        time.sleep(0.2)  # Consul shows the last ten seconds, which may just have begun
        gauges = {each["Name"]: each for each in server.get("/v1/agent/metrics").json["Gauges"]}
    assert gauges["consul.raft.applied_index"]["Value"] > 0
    assert gauges["consul.raft.applied_index"]["Labels"] == {}
    assert {"Points", "Counters", "Samples"} <= answer.json.keys()


def test_the_servers(server, same):
    own = {"Node": "n1", "Leader": True, "Voter": True, "ProtocolVersion": "3"}
    same(server.get("/v1/operator/raft/configuration").json, {"Index": 0, "Servers": [own]})
    same(server.get("/v1/status/peers").json, [re.compile(r"127\.0\.0\.1:\d+")])


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("PUT", "/v1/acl/token", 401, "ACL support disabled"),
        ("PUT", "/v1/acl/bootstrap", 401, "ACL support disabled"),
        ("PUT", "/v1/agent/token/default", 401, "ACL support disabled"),
        ("GET", "/v1/agent/monitor?loglevel=bogus", 400, "Bad request: Unknown log level: bogus"),
        ("GET", "/v1/operator/keyring", 500, "Keyring is empty (encryption not enabled)"),
        (
            "DELETE",
            "/v1/operator/raft/peer",
            400,
            "Bad request: Must specify either ?id with the server's ID",
        ),
        ("DELETE", "/v1/operator/raft/peer?id=x", 500, 'id "x" was not found in the Raft configuration'),
        (
            "DELETE",
            "/v1/operator/raft/peer?address=x",
            500,
            'address "x" was not found in the Raft configuration',
        ),
        ("GET", "/v1/health/ingress/", 400, "Missing service name"),
    ],
)
def test_what_this_cluster_has_not(server, method, path, status, words):
    answer = server.ask(method, path, b"{}" if method != "GET" else None)
    assert answer.status == status
    assert words in answer.text


def test_the_leaders_address_is_the_same_everywhere(server):
    own = server.get("/v1/agent/self").json
    leader = server.get("/v1/status/leader").json
    assert own["Stats"]["consul"]["leader_addr"] == leader
    assert server.get("/v1/status/peers").json == [leader]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/health/ingress/x",
        "/v1/connect/intentions",
        "/v1/query",
        "/v1/health/connect/x",
        "/v1/catalog/connect/x",
    ],
)
def test_lists_that_are_empty(server, path):
    answer = server.get(path)
    assert (answer.status, answer.json) == (200, [])


def test_coordinates_of_who_has_none(server):
    assert server.get("/v1/coordinate/node/nope").status == 404
    assert isinstance(server.get("/v1/coordinate/nodes").json, list)
    assert isinstance(server.get("/v1/coordinate/datacenters").json, list)


def test_the_uis_services(server, name, same):
    server.put(f"/v1/agent/check/warn/service:{name}")
    register(server, name, ID=f"{name}-2", Tags=["b", "a"])
    path = f"/v1/health/service/{name}"
    server.wait_until("registered", path, lambda it: [len(each["Checks"]) for each in it.json] == [2, 2])
    found = {each["Name"]: each for each in server.get("/v1/internal/ui/services").json}
    same(
        found[name],
        {
            "Nodes": ["n1", "n1"],
            "InstanceCount": 2,
            "ChecksPassing": 3,
            "ChecksWarning": 1,
            "ChecksCritical": 0,
        },
    )
    assert sorted(found[name]["Tags"]) == ["a", "b"]
    narrowed = server.get("/v1/internal/ui/services", filter=f'Service.ID == "{name}-2"').json
    same(narrowed, [{"Name": name, "InstanceCount": 1}])


def test_the_uis_nodes(server, name):
    for shown in (
        server.get("/v1/internal/ui/node/n1").json,
        next(each for each in server.get("/v1/internal/ui/nodes").json if each["Node"] == "n1"),
    ):
        assert name in {each["ID"] for each in shown["Services"]}
        assert "serfHealth" in {each["CheckID"] for each in shown["Checks"]}
        assert shown["Address"] == "127.0.0.1"
    assert server.get("/v1/internal/ui/node/nope").status == 404
    refused = server.get("/v1/internal/ui/node/")
    assert (refused.status, refused.text.strip()) == (400, "Missing node name")


def test_services_of_a_node_in_a_list(server, name):
    found = server.get("/v1/catalog/node-services/n1").json
    assert found["Node"]["Node"] == "n1"
    assert name in {each["ID"] for each in found["Services"]}
    unknown = server.get("/v1/catalog/node-services/nope")
    assert (unknown.status, unknown.json) == (200, {"Node": None, "Services": None})
    assert unknown.index >= 1


def test_a_node_has_a_name(server):
    answer = server.get("/v1/catalog/node-services/")
    assert (answer.status, answer.text.strip()) == (400, "Missing node name")
