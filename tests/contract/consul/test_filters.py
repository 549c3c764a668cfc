"""`?filter=` and `?node-meta=`: what passes, and with which words a filter is refused.

One difference, on purpose: Consul 1.8.7 answers a wrong filter with 500, later ones and the embedded registry 400.
"""

from __future__ import annotations

import pytest

NO_FILTER = "Failed to create boolean expression evaluator: "


@pytest.fixture(scope="module")
def farm(server):
    """Two services on this node; the name is one that nothing else has."""
    name = server.unique("filtered").replace("-", "_")
    for number, tags, meta in ((1, ["a", "b"], {"version": "0.0.1", "k-x": "y"}), (2, [], None)):
        answer = server.put(
            "/v1/agent/service/register",
            {
                "ID": f"{name}_{number}",
                "Name": name,
                "Port": 80 + number,
                "Tags": tags,
                "Meta": meta,
                "Address": "10.0.0.1",
                "TaggedAddresses": {"lan": {"address": "1.2.3.4", "port": 99}} if tags else None,
                "EnableTagOverride": number == 2,
                "Weights": {"Passing": 10 * number, "Warning": 1},
                "Check": {"TTL": "600s", "Status": "passing" if tags else "warning"},
            },
        )
        assert answer.status == 200, answer.text
    server.wait_until(
        "registered",
        f"/v1/health/service/{name}",
        lambda it: len(it.json) == 2 and all(len(each["Checks"]) == 2 for each in it.json),
    )
    return name


def refused(server, answer):
    return answer.status == (400 if server.kind == "embedded" else 500)


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("Port == 81", "1"),
        ('Port == "81"', "1"),
        ("Port==81", "1"),
        ("Port != 81", "2"),
        ("Port == -1", ""),
        ("Port == `0x51`", "1"),
        ("a in Tags", "1"),
        ('"a" in Tags', "1"),
        ("a not in Tags", "2"),
        ("Tags contains b", "1"),
        ("Tags not contains b", "2"),
        ("Tags is empty", "2"),
        ("Tags is not empty", "1"),
        ("Meta is empty", "2"),
        ("Meta is not empty", "1"),
        ("version in Meta", "1"),
        ("Meta contains version", "1"),
        ('Meta.version == "0.0.1"', "1"),
        ('Meta["version"] == `0.0.1`', "1"),
        ('Meta["k-x"] == y', "1"),
        ('Meta.version != "0.0.1"', "2"),
        ("Meta.nope == x", ""),
        ("Meta.nope != x", "12"),
        ('Meta.nope matches "x"', "12"),
        ("EnableTagOverride == true", "2"),
        ("EnableTagOverride == f", "1"),
        ("EnableTagOverride != T", "1"),
        ("Weights.Passing == 20", "2"),
        ('TaggedAddresses.lan.Address == "1.2.3.4"', "1"),
        ('TaggedAddresses["lan"].Port == 99', "1"),
        ("lan in TaggedAddresses", "1"),
        ("lan not in TaggedAddresses", "2"),
        ('Service matches "^filtered"', "12"),
        ("ID matches `_1$`", "1"),
        ("ID not matches `_1$`", "2"),
        ("ID matches `(?i)_1\\z`", "1"),
        ("ID matches `\\d_[13]$`", "1"),
        ("ID matches `^\\w+_(1|3)$`", "1"),
        ("ID matches `[[:digit:]]_[^2]$`", "1"),
        ("filtered in Service", "12"),
        ("Service not contains filtered", ""),
        ("not Port == 81", "2"),
        ("not not Port == 81", "1"),
        ("not (Port == 81 or Port == 82)", ""),
        ("Port == 81 and a in Tags", "1"),
        ("Port == 81 and a not in Tags", ""),
        ("Port == 82 or Tags contains a and Tags contains c", "2"),
        ("(Port == 82 or Tags contains a) and Tags contains b", "1"),
        ("( Port == 81 )", "1"),
        (" Port == 81\n", "1"),
        ("Port == 81\tor Port == 82", "12"),
        ('Address == "10.0.0.1"', "12"),
        ('Address == ""', ""),
        ('Kind == ""', "12"),
    ],
)
def test_what_passes(server, farm, expression, numbers):
    answer = server.get("/v1/agent/services", filter=f"Service == {farm} and ({expression})")
    assert answer.status == 200, answer.text
    assert sorted(answer.json) == [f"{farm}_{number}" for number in numbers]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (
            "Port = 1",
            '1:6 (5): no match found, expected: "!=", "==", "contains", "in", "is", "matches", "not" or',
        ),
        (
            "Port == abc",
            'Failed to coerce value "abc" for selector "Port": strconv.ParseInt: parsing "abc": invalid',
        ),
        ("Port == 080", '1:10 (9): rule "number": Invalid number literal'),
        ("Port == 1.5", 'Failed to coerce value "1.5" for selector "Port"'),
        ("Port == 99999999999999999999", "value out of range"),
        ("EnableTagOverride == maybe", 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("Bogus == 1", 'Selector "Bogus" is not valid'),
        ("service == x", 'Selector "service" is not valid'),
        ("Service.Foo == x", 'Selector "Service.Foo" is not valid'),
        ("Meta.a.b == x", 'Selector "Meta.a.b" is not valid'),
        ("CreateIndex == 1", 'Selector "CreateIndex" is not valid'),
        ("x in nope", 'Selector "nope" is not valid'),
        ("Meta == x", 'Invalid match operator "Equal" for selector "Meta"'),
        ("Tags != x", 'Invalid match operator "Not Equal" for selector "Tags"'),
        ("Service is empty", 'Invalid match operator "Is Empty" for selector "Service"'),
        ("Port is not empty", 'Invalid match operator "Is Not Empty" for selector "Port"'),
        ("8 in Port", 'Invalid match operator "In" for selector "Port"'),
        ("Port not matches 8", 'Invalid match operator "Not Matches" for selector "Port"'),
        ("Weights == 1", 'Invalid match operator "Equal" for selector "Weights"'),
        (
            "Service ==",
            '1:11 (10): no match found, expected: "-", "0", "\\"", "`", [ \\t\\r\\n], [1-9] or [a-zA-Z]',
        ),
        (
            "== x",
            '1:1 (0): no match found, expected: "(", "-", "0", "\\"", "`", "not", [ \\t\\r\\n], [1-9] or',
        ),
        ("Service", 'expected: "!=", ".", "==", "[", [ \\t\\r\\n] or [a-zA-Z0-9_]'),
        ("Service == x y", '1:14 (13): no match found, expected: "and", "or", [ \\t\\r\\n] or EOF'),
        ("Service == x AND Port == 1", 'expected: "and", "or", [ \\t\\r\\n] or EOF'),
        ("Service == x and", "1:17 (16): no match found, expected: [ \\t\\r\\n]"),
        ("Service == a-b", 'expected: ".", "[", [ \\t\\r\\n], [a-zA-Z0-9_] or EOF'),
        ("Service == 'x'", '1:12 (11): no match found, expected: "-", "0"'),
        ('Service == "x', '1:14 (13): rule "string": Unterminated string literal'),
        ('Service == "a\\"b"', '1:12 (11): rule "string": invalid syntax'),
        ("(Service == x", '1:14 (13): rule "grouping": Unmatched parentheses'),
        ("Service == x)", "or EOF"),
        ("()", "1:2 (1): no match found"),
        ("Meta[x] == y", '1:6 (5): rule "index": Invalid index'),
        ('Port in "80"', '1:9 (8): rule "match": Invalid selector'),
        ("Tags.0 == a", "1:6 (5): no match found, expected: [a-zA-Z]"),
        (
            'Service matches "["',
            'Failed to compile regular expression "[": error parsing regexp: missing closing ]: `[`',
        ),
        ("Service matches `(`", "error parsing regexp: missing closing ): `(`"),
        ("Service matches `*`", "error parsing regexp: missing argument to repetition operator: `*`"),
        ("Service matches `a**`", "error parsing regexp: invalid nested repetition operator: `**`"),
        ("Service matches `a{1001}`", "error parsing regexp: invalid repeat count: `{1001}`"),
        ("Service matches `(?=a)`", "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
        ("Service matches `(a)\\1`", "error parsing regexp: invalid escape sequence: `\\1`"),
        ("Service matches `[b-a]`", "error parsing regexp: invalid character class range: `b-a`"),
        ("Service matches `\\`", "error parsing regexp: trailing backslash at end of expression: ``"),
    ],
)
def test_with_which_words_a_filter_is_refused(server, expression, words):
    answer = server.get("/v1/agent/services", filter=expression)
    assert refused(server, answer)
    assert answer.text.startswith(NO_FILTER)
    assert words in answer.text


def ids(answer):
    assert answer.status == 200, answer.text
    return answer.json


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("Service.Port == 81", "1"),
        ("b in Service.Tags", "1"),
        ('Service.Meta.version == "0.0.1"', "1"),
        ("Service.Weights.Passing == 20", "2"),
        ("Node.Node == n1", "12"),
        ("Node.Datacenter == dc2", ""),
        ("Checks is empty", ""),
        ("Checks is not empty", "12"),
        ("Checks.Status == warning", "2"),
        ("Checks.Status != passing", "2"),
        ("Checks.Status != warning", "12"),
        ("not Checks.Status == warning", "1"),
        ("Checks.CheckID == serfHealth", "12"),
        ("a in Checks.ServiceTags", "1"),
        ("Checks.Name == `Serf Health Status` and Checks.Status == warning", "2"),
        ("Checks.Status matches `^warn`", "2"),
    ],
)
def test_health_of_a_service(server, farm, expression, numbers):
    found = ids(server.get(f"/v1/health/service/{farm}", filter=expression))
    assert [each["Service"]["ID"] for each in found] == [f"{farm}_{number}" for number in numbers]


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("ServicePort == 82", "2"),
        ("a in ServiceTags", "1"),
        ('ServiceMeta["k-x"] == y', "1"),
        ("ServiceName matches `^filtered`", "12"),
        ("ServiceID matches `_2$`", "2"),
        ("Node == n1", "12"),
        ("Node == n2", ""),
        ("ServiceWeights.Passing == 10", "1"),
        ("ServiceEnableTagOverride == true", "2"),
        ('ServiceAddress == "10.0.0.1"', "12"),
        ("Datacenter == dc1", "12"),
        ("NodeMeta.nope == x", ""),
    ],
)
def test_a_service_in_the_catalog(server, farm, expression, numbers):
    found = ids(server.get(f"/v1/catalog/service/{farm}", filter=expression))
    assert [each["ServiceID"] for each in found] == [f"{farm}_{number}" for number in numbers]


@pytest.mark.parametrize(
    "path", ["/v1/health/checks/{}", "/v1/health/state/any", "/v1/health/node/n1", "/v1/agent/checks"]
)
@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("Status == warning", "2"),
        ("Status != warning", "1"),
        ("b in ServiceTags", "1"),
        ("CheckID matches `_2$`", "2"),
        ("Type == ttl or Type is nothing", None),
        ("Definition.HTTP == x", None),
    ],
)
def test_checks(server, farm, path, expression, numbers):
    answer = server.get(path.format(farm), filter=f"ServiceName == {farm} and ({expression})")
    if numbers is None:
        assert refused(server, answer)
    else:
        found = answer.json.values() if isinstance(answer.json, dict) else answer.json
        assert sorted(each["ServiceID"] for each in found) == [f"{farm}_{number}" for number in numbers]


@pytest.mark.parametrize("path", ["/v1/catalog/node/n1", "/v1/catalog/node-services/n1"])
def test_services_of_a_node(server, farm, path):
    services = ids(server.get(path, filter=f"Service == {farm} and Port == 82"))["Services"]
    found = services.values() if isinstance(services, dict) else services
    assert [each["ID"] for each in found] == [f"{farm}_2"]
    assert refused(server, server.get(path, filter="Node == n1"))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/agent/services",
        "/v1/agent/checks",
        "/v1/catalog/nodes",
        "/v1/catalog/service/x",
        "/v1/catalog/node/n1",
        "/v1/catalog/node/nope",
        "/v1/catalog/node-services/n1",
        "/v1/catalog/connect/x",
        "/v1/health/service/x",
        "/v1/health/connect/x",
        "/v1/health/checks/x",
        "/v1/health/node/n1",
        "/v1/health/state/any",
    ],
)
def test_every_list_refuses_what_is_no_filter(server, path):
    answer = server.get(path, filter="no filter")
    assert refused(server, answer)
    assert "1:4 (3): no match found" in answer.text
    assert server.get(path, filter="").status == 200


def external(server, **fields):
    node = server.unique("far")
    server.put("/v1/catalog/register", {"Node": node, "Address": "10.0.0.9", **fields})
    return node


def test_nodes_by_filter_and_meta(server):
    rack = server.unique("rack")
    one = external(server, NodeMeta={"rack": rack, "row": "1"}, TaggedAddresses={"lan": "10.1.1.1"})
    two = external(server, NodeMeta={"rack": rack, "row": "2"})

    def names(**params):
        return [each["Node"] for each in ids(server.get("/v1/catalog/nodes", **params))]

    assert names(filter=f'Meta.rack == "{rack}"') == [one, two]
    assert names(filter=f'Meta.rack == "{rack}" and TaggedAddresses.lan == "10.1.1.1"') == [one]
    assert names(filter=f'Node == "{two}"') == [two]
    assert names(**{"node-meta": f"rack:{rack}"}) == [one, two]
    assert names(**{"node-meta": f"rack:{rack}", "filter": 'Meta.row == "2"'}) == [two]
    several = server.get(f"/v1/catalog/nodes?node-meta=rack:{rack}&node-meta=row:1")
    assert [each["Node"] for each in several.json] == [one]
    for none in (f"rack:{rack}x", "rack", "", ":"):
        assert names(**{"node-meta": none}) == []


def test_services_and_checks_by_node_meta(server):
    rack, name = server.unique("rack"), server.unique("db")
    for number in (1, 2):
        external(
            server,
            NodeMeta={"rack": f"{rack}-{number}"},
            Service={"ID": f"{name}-{number}", "Service": name, "Tags": [f"t{number}"]},
            Check={"Name": "c", "Status": "passing", "ServiceID": f"{name}-{number}"},
        )
    meta = {"node-meta": f"rack:{rack}-2"}
    assert ids(server.get("/v1/catalog/services", **meta)) == {name: ["t2"]}
    for path, id_of in (
        (f"/v1/catalog/service/{name}", lambda it: it["ServiceID"]),
        (f"/v1/health/service/{name}", lambda it: it["Service"]["ID"]),
        (f"/v1/health/checks/{name}", lambda it: it["ServiceID"]),
        ("/v1/health/state/passing", lambda it: it["ServiceID"]),
    ):
        assert [id_of(each) for each in ids(server.get(path, **meta))] == [f"{name}-2"], path


def test_a_filter_waits_like_any_query(server):
    name = server.unique("svc").replace("-", "_")
    server.put("/v1/agent/service/register", {"Name": name, "Check": {"TTL": "60s", "Status": "passing"}})
    path, passing = f"/v1/health/service/{name}", {"filter": "Checks.Status != passing"}
    server.wait_until("registered", path, lambda it: it.json and len(it.json[0]["Checks"]) == 2)
    assert server.get(path, **passing).json == []
    parked = server.parked(path, server.get(path).index, **passing)
    assert parked.still_waits()
    server.put(f"/v1/agent/check/fail/service:{name}")
    assert [each["Service"]["ID"] for each in parked.result().json] == [name]


@pytest.mark.parametrize("near", ["_agent", "n1", "nope", ""])
@pytest.mark.parametrize(
    "path", ["/v1/catalog/nodes", "/v1/catalog/service/consul", "/v1/health/service/consul"]
)
def test_near_is_taken(server, path, near):
    assert "n1" in {
        each["Node"] if isinstance(each["Node"], str) else each["Node"]["Node"]
        for each in ids(server.get(path, near=near))
    }
