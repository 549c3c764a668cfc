from __future__ import annotations

import re

import pytest

REGISTER = "/v1/agent/service/register"


def register(server, **fields):
    name = fields.pop("Name", None) or server.unique("svc")
    answer = server.put(REGISTER, {"Name": name, **fields})
    assert (answer.status, answer.text) == (200, ""), answer.text
    return name


def checks(server, name, holds=lambda found: True):
    """The checks as the catalog shows them; Consul's agent writes there a moment later."""
    return server.wait_until("checks", f"/v1/health/checks/{name}", lambda it: holds(it.json)).json


def test_self_has_only_objects_and_names_its_node(server):
    found = server.get("/v1/agent/self").json
    assert all(isinstance(part, dict) for part in found.values())
    assert (found["Config"]["Datacenter"], found["Config"]["NodeName"]) == ("dc1", "n1")
    assert found["Config"]["Version"] == "1.8.7"
    assert found["Member"]["Name"] == "n1"


def test_members(server, same):
    same(
        server.get("/v1/agent/members").json,
        [{"Name": "n1", "Status": 1, "Tags": {"dc": "dc1", "role": "consul"}}],
    )


def test_status(server):
    assert re.fullmatch(r"127\.0\.0\.1:\d+", server.get("/v1/status/leader").json)
    assert server.get("/v1/status/peers").json == [server.get("/v1/status/leader").json]


def test_a_registered_service_as_its_agent_shows_it(server, same):
    service_id = server.unique("id")
    name = register(server, ID=service_id, Port=80, Address="10.0.0.7", Tags=["version=1"], Meta={"a": "b"})
    wanted = {
        "ID": service_id,
        "Service": name,
        "Tags": ["version=1"],
        "Meta": {"a": "b"},
        "Port": 80,
        "Address": "10.0.0.7",
        "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": False,
    }
    same(server.get("/v1/agent/services").json[service_id], wanted)
    one = server.get(f"/v1/agent/service/{service_id}")
    same(one.json, wanted)
    assert one.json["ContentHash"] == one.headers["X-Consul-Contenthash"]
    bare = register(server)
    same(server.get("/v1/agent/services").json[bare], {"ID": bare, "Tags": [], "Meta": {}, "Port": 0})


def test_field_names_count_without_case_and_underscores(server, same):
    name = server.unique("svc")
    body = {
        "name": name,
        "tags": ["x"],
        "enable_tag_override": True,
        "META": {"Keep_This": "Case"},
        "check": {"ttl": "15.0s", "DEREGISTER_CRITICAL_SERVICE_AFTER": "150.0s", "status": "passing"},
        "checks": None,
    }
    assert server.put(REGISTER, body).status == 200
    same(
        server.get(f"/v1/agent/service/{name}").json,
        {"Tags": ["x"], "EnableTagOverride": True, "Meta": {"Keep_This": "Case"}},
    )
    assert checks(server, name)[0]["Status"] == "passing"


def test_a_check_gets_its_names_from_the_service(server, same):
    name = register(server, Check={"TTL": "15s"}, Tags=["t"])
    same(
        checks(server, name, bool),
        [
            {
                "Node": "n1",
                "CheckID": f"service:{name}",
                "Name": f"Service '{name}' check",
                "Status": "critical",
                "Notes": "",
                "Output": "",
                "ServiceID": name,
                "ServiceName": name,
                "ServiceTags": ["t"],
                "Type": "ttl",
            }
        ],
    )


def test_several_checks_are_numbered(server):
    name = register(
        server,
        Checks=[
            {"CheckID": server.unique("own"), "TTL": "15s", "Status": "passing", "Notes": "hi"},
            {"HTTP": "http://127.0.0.1:1/", "Interval": "100s"},
            {"TCP": "127.0.0.1:1", "Interval": "100s", "Status": "warning"},
        ],
    )
    found = {each["CheckID"]: each for each in checks(server, name, lambda it: len(it) == 3)}
    assert f"service:{name}:2" in found
    assert found[f"service:{name}:2"]["Type"] == "http"
    assert found[f"service:{name}:2"]["Status"] == "critical"
    assert found[f"service:{name}:3"]["Type"] == "tcp"


def test_ttl_reports(server):
    name = register(server, Check={"TTL": "60s"})
    check = f"service:{name}"
    for verb, status in (("pass", "passing"), ("warn", "warning"), ("fail", "critical")):
        answer = server.put(f"/v1/agent/check/{verb}/{check}", note=f"note {verb}")
        assert (answer.status, answer.text) == (200, "")
        checks(
            server,
            name,
            lambda it, s=status, v=verb: it and (it[0]["Status"], it[0]["Output"]) == (s, f"note {v}"),
        )
    server.put(f"/v1/agent/check/update/{check}", {"Status": "passing", "Output": "fine"})
    checks(server, name, lambda it: (it[0]["Status"], it[0]["Output"]) == ("passing", "fine"))
    assert server.get("/v1/agent/checks").json[check]["Output"] == "fine"


def test_a_long_output_is_cut(server):
    name = register(server, Check={"TTL": "60s"})
    server.put(f"/v1/agent/check/update/service:{name}", {"Status": "passing", "Output": "x" * 5000})
    found = checks(server, name, lambda it: it and it[0]["Status"] == "passing")
    assert found[0]["Output"] == "x" * 4096 + " ... (captured 4096 of 5000 bytes)"


def test_a_ttl_that_nobody_reports_to_expires(server):
    silent = register(server, Check={"TTL": "300ms", "Status": "passing"})
    spoken = register(server, Check={"TTL": "300ms"})
    server.put(f"/v1/agent/check/pass/service:{spoken}", note="all well")
    found = checks(server, silent, lambda it: it and it[0]["Status"] == "critical")
    assert found[0]["Output"] == "TTL expired"
    found = checks(server, spoken, lambda it: it and it[0]["Status"] == "critical")
    assert found[0]["Output"] == "TTL expired (last output before timeout follows): all well"


def test_registering_again_keeps_the_status_and_replaces_the_rest(server):
    name = register(server, Check={"TTL": "60s"})
    server.put(f"/v1/agent/check/pass/service:{name}", note="n")
    checks(server, name, lambda it: it and it[0]["Status"] == "passing")
    register(server, Name=name, Check={"TTL": "60s", "Status": "warning", "Notes": "new"}, Tags=["x"])
    found = checks(server, name, lambda it: it[0]["ServiceTags"] == ["x"])
    assert (found[0]["Status"], found[0]["Output"], found[0]["Notes"]) == ("passing", "n", "new")


def test_registering_the_same_again_changes_no_index(server):
    name = register(server, Check={"TTL": "60s", "Status": "passing"}, Port=1)
    checks(server, name, bool)
    before = server.get(f"/v1/health/service/{name}")
    register(server, Name=name, Check={"TTL": "60s", "Status": "passing"}, Port=1)
    server.put(f"/v1/agent/check/pass/service:{name}")
    after = server.get(f"/v1/health/service/{name}")
    assert (after.index, after.json) == (before.index, before.json)


def test_checks_of_before_stay_unless_they_are_to_be_replaced(server):
    name = register(server, Check={"CheckID": server.unique("first"), "TTL": "60s"})
    register(server, Name=name, Check={"CheckID": server.unique("second"), "TTL": "60s"})
    checks(server, name, lambda it: len(it) == 2)
    third = server.unique("third")
    server.put(
        REGISTER,
        {"Name": name, "Check": {"CheckID": third, "TTL": "60s"}},
        **{"replace-existing-checks": "true"},
    )
    found = checks(server, name, lambda it: len(it) == 1)
    assert found[0]["CheckID"] == third


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "Missing service name"),
        ({"Name": ""}, 400, "Missing service name"),
        ("", 400, "Request decode failed: EOF"),
        (
            {"Name": "b", "Check": {"Status": "passing"}},
            400,
            "Invalid check: TTL must be > 0 for TTL checks",
        ),
        (
            {"Name": "b", "Check": {"HTTP": "http://x"}},
            400,
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            {"Name": "b", "Check": {"TTL": "10s", "HTTP": "http://x", "Interval": "1s"}},
            400,
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        ({"Name": "b", "Check": {"TTL": "abc"}}, 400, 'Request decode failed: time: invalid duration "abc"'),
        (
            {"Name": "b", "Check": {"TTL": "10s", "Status": "bogus"}},
            400,
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        ({"Name": "b", "Weights": {"Passing": 0}}, 400, "Invalid Weights: Passing must be greater than 0"),
        ({"Name": "b", "Address": "0.0.0.0"}, 400, "Invalid service address"),
    ],
)
def test_what_a_registration_is_refused_for(server, body, status, text):
    answer = server.put(REGISTER, body)
    assert (answer.status, answer.text.strip()) == (status, text)


@pytest.mark.parametrize(
    "body", ["x", "[]", '{"Name":"b","Port":"80"}', '{"Name":1}', '{"Name":"b","Tags":"x"}']
)
def test_a_registration_of_the_wrong_shape(server, body):
    answer = server.put(REGISTER, body)
    assert answer.status == 400
    assert answer.text.startswith("Request decode failed: ")


def test_an_empty_check_is_no_check(server):
    name = register(server, Check={})
    assert server.get(f"/v1/health/checks/{name}").json == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("PUT", "/v1/agent/service/deregister/nope", None, 200, ""),
        ("PUT", "/v1/agent/service/deregister/", None, 500, "ServiceID missing"),
        ("GET", "/v1/agent/service/nope", None, 404, "unknown service ID: nope"),
        (
            "PUT",
            "/v1/agent/service/maintenance/nope?enable=true",
            None,
            404,
            'No service registered with ID "nope"',
        ),
        ("PUT", "/v1/agent/service/maintenance/nope", None, 400, "Missing value for enable"),
        ("PUT", "/v1/agent/service/maintenance/nope?enable=x", None, 400, 'Invalid value for enable: "x"'),
        ("PUT", "/v1/agent/maintenance", None, 400, "Missing value for enable"),
        ("PUT", "/v1/agent/check/pass/nope", None, 500, 'CheckID "nope" does not have associated TTL'),
        (
            "PUT",
            "/v1/agent/check/update/nope",
            {"Status": "passing"},
            500,
            'CheckID "nope" does not have associated TTL',
        ),
        ("PUT", "/v1/agent/check/update/nope", {"Status": "bogus"}, 400, "Invalid check status: 'bogus'"),
        ("PUT", "/v1/agent/check/update/nope", {}, 400, "Invalid check status: ''"),
        ("PUT", "/v1/agent/check/deregister/nope", None, 200, ""),
        ("PUT", "/v1/agent/check/register", {"TTL": "10s"}, 400, "Missing check name"),
        (
            "PUT",
            "/v1/agent/check/register",
            {"Name": "x"},
            400,
            "Invalid check: TTL must be > 0 for TTL checks",
        ),
        (
            "PUT",
            "/v1/agent/check/register",
            {"Name": "x", "TTL": "10s", "ServiceID": "nope"},
            500,
            'ServiceID "nope" does not exist',
        ),
        ("GET", "/v1/agent/check/warn/x", None, 405, "method GET not allowed"),
        ("GET", "/v1/nope", None, 404, ""),
    ],
)
def test_what_is_refused_and_with_which_words(server, method, path, body, *, status, text):
    answer = server.ask(method, path, body)
    assert (answer.status, answer.text.strip()) == (status, text)


def test_deregistering_takes_the_checks_along(server):
    name = register(server, Check={"TTL": "60s"})
    checks(server, name, bool)
    assert server.put(f"/v1/agent/service/deregister/{name}").text == ""
    server.wait_until("gone", f"/v1/health/service/{name}", lambda it: it.json == [])
    assert f"service:{name}" not in server.get("/v1/agent/checks").json
    server.wait_until("unlisted", "/v1/catalog/services", lambda it: name not in it.json)


def test_a_check_comes_and_goes_by_itself(server):
    name = register(server)
    check = server.unique("extra")
    answer = server.put(
        "/v1/agent/check/register", {"Name": check, "TTL": "60s", "ServiceID": name, "Status": "passing"}
    )
    assert (answer.status, answer.text) == (200, "")
    found = checks(server, name, bool)
    assert (found[0]["CheckID"], found[0]["Status"]) == (check, "passing")
    server.put(f"/v1/agent/check/deregister/{check}")
    checks(server, name, lambda it: it == [])


def test_service_maintenance_overrides_passing(server, same):
    name = register(server, Check={"TTL": "60s", "Status": "passing"}, Tags=["t"])
    assert server.put(f"/v1/agent/service/maintenance/{name}", enable="true", reason="why not").text == ""
    found = checks(server, name, lambda it: len(it) == 2)
    same(
        found[0],
        {
            "CheckID": f"_service_maintenance:{name}",
            "Name": "Service Maintenance Mode",
            "Status": "critical",
            "Notes": "why not",
            "Output": "",
            "ServiceID": name,
            "ServiceTags": ["t"],
            "Type": "maintenance",
        },
    )
    assert server.get(f"/v1/health/service/{name}", passing="").json == []
    server.put(f"/v1/agent/service/maintenance/{name}", enable="false")
    checks(server, name, lambda it: len(it) == 1)
    assert len(server.get(f"/v1/health/service/{name}", passing="").json) == 1


def test_node_maintenance_and_its_default_reason(server):
    server.put("/v1/agent/maintenance", enable="true")
    found = server.wait_until(
        "in maintenance",
        "/v1/health/node/n1",
        lambda it: any(each["CheckID"] == "_node_maintenance" for each in it.json),
    ).json
    check = next(each for each in found if each["CheckID"] == "_node_maintenance")
    assert (check["Name"], check["Status"], check["ServiceID"]) == ("Node Maintenance Mode", "critical", "")
    assert check["Notes"].startswith("Maintenance mode is enabled for this node, but no reason was provided.")
    server.put("/v1/agent/maintenance", enable="false")
    server.wait_until(
        "out of maintenance",
        "/v1/health/node/n1",
        lambda it: all(each["CheckID"] != "_node_maintenance" for each in it.json),
    )


@pytest.mark.parametrize(
    ("verb", "status", "code"),
    [("pass", "passing", 200), ("warn", "warning", 429), ("fail", "critical", 503)],
)
def test_local_health_answers_by_its_status(server, verb, status, code):
    name = register(server, Check={"TTL": "60s"})
    server.put(f"/v1/agent/check/{verb}/service:{name}")
    for path in (f"/v1/agent/health/service/id/{name}", f"/v1/agent/health/service/name/{name}"):
        answer = server.get(path)
        assert answer.status == code
        shown = answer.json if "/id/" in path else answer.json[0]
        assert (shown["AggregatedStatus"], shown["Service"]["ID"]) == (status, name)
        assert server.get(path, format="text").text.strip() == status


def test_local_health_of_nothing(server):
    by_id = server.get("/v1/agent/health/service/id/nope")
    assert (by_id.status, by_id.json["AggregatedStatus"]) == (404, "critical")
    assert server.get("/v1/agent/health/service/name/nope").status == 404
