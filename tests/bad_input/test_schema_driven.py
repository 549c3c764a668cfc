"""Good and bad requests for every operation, made from docs/openapi.json: each is answered, and as described."""

from __future__ import annotations

import os

import pytest
from bad_input.description import DESCRIPTION, operations
from bad_input.known_errors import is_known
from bad_input.remains import after_a_restart, remains
from conformance.registries import NODE
from hypothesis import HealthCheck, Phase, given, seed, settings

from milkrun.registry.duration import seconds

EXAMPLES = 300 if os.environ.get("MILKRUN_SOAK") else 12
ANSWERED_WITHIN_S = 20.0
WAITS_S_AT_MOST = 0.05
HEALTH = "/v1/agent/health/service/"
"""Here 503 says how a service is."""

TOKENS = "/v1/acl/"
MANAGEMENT, ANONYMOUS = (f"00000000-0000-0000-0000-00000000000{last}" for last in "12")
"""The policy and the token that every registry has."""
NOTHING_THERE = ("/v1/coordinate/node/{node}", "/v1/operator/keyring", "/v1/agent/monitor")
"""What one server has not."""

QUICK = settings(
    max_examples=EXAMPLES,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def described():
    import schemathesis  # a second to import, and only needed here

    return schemathesis.openapi.from_path(DESCRIPTION)


@pytest.fixture(scope="module")
def client():
    import requests

    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def servers(registry, guarded):
    """Where everybody may do everything, and where there are tokens."""
    return {False: registry, True: guarded}


def as_described():
    """Schemathesis' judges of an answer's body."""
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    return [CHECKS.get_one(name) for name in ("response_schema_conformance", "content_type_conformance")]


def waits_briefly(query):
    """The query, if it does not ask to wait for minutes: that is no hang."""
    try:
        short = 0 < seconds(str(query["wait"])) <= WAITS_S_AT_MOST
    except (KeyError, ValueError):
        short = False
    return query if short or not {"index", "hash"} & query.keys() else {**query, "wait": "1ms"}


@pytest.mark.parametrize("kind", ["good", "bad"])
@pytest.mark.parametrize("operation", operations(), ids=" ".join)
def test_every_request_is_answered_as_described(servers, described, client, operation, kind):
    from schemathesis import GenerationMode

    method, path = operation
    server = servers[path.startswith(TOKENS)]
    headers = {"X-Consul-Token": server.token} if path.startswith(TOKENS) else {}
    mode = GenerationMode.POSITIVE if kind == "good" else GenerationMode.NEGATIVE
    cases = described[path][method].as_strategy(generation_mode=mode)

    @seed(20261120)
    @QUICK
    @given(case=cases)
    def each(case):
        case.query = waits_briefly(case.query or {})
        url = f"http://127.0.0.1:{server.port}"
        reply = case.call(url, session=client, headers=headers, timeout=ANSWERED_WITHIN_S)
        if reply.status_code >= 500 and not (path.startswith(HEALTH) and reply.status_code == 503):
            assert is_known(reply.text), reply.text
        case.validate_response(reply, checks=as_described())

    each()
    assert server.get("/v1/status/leader").status == 200


@pytest.fixture(scope="module")
def there(registry, guarded):
    """Something of each kind, and by which parameters it is asked for."""
    assert registry.put("/v1/agent/maintenance", enable="false").status == 200  # as some request left it
    check = {"TTL": "600s", "Status": "passing"}
    fields = {
        "Tags": ["a"],
        "Meta": {"a": "b"},
        "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 1}},
    }
    assert (
        registry.put("/v1/agent/service/register", {"Name": "goat", "Check": check, **fields}).status == 200
    )
    bare = {
        "Node": NODE,
        "Address": "127.0.0.1",
        "SkipNodeUpdate": True,
        "Service": {"ID": "bare", "Service": "goat"},
    }
    assert registry.put("/v1/catalog/register", bare).status == 200
    session = registry.session()
    assert registry.put("/v1/kv/goat", b"milk", flags="7", acquire=session).text == "true"
    assert registry.put("/v1/event/fire/goat", b"milk").status == 200
    names = dict.fromkeys(("key", "service", "id"), "goat")
    return {
        **names,
        "node": NODE,
        "state": "any",
        "session": session,
        "policy": MANAGEMENT,
        "accessor": ANONYMOUS,
    }


@pytest.mark.parametrize("path", [path for method, path in operations() if method == "get"])
def test_what_is_there_is_shown_as_described(servers, described, client, there, path):
    server = servers[path.startswith(TOKENS)]
    headers = {"X-Consul-Token": server.token} if path.startswith(TOKENS) else {}
    rest = {name: value for name, value in there.items() if f"{{{name}}}" in path}
    case = described[path]["get"].Case(path_parameters=rest)
    reply = case.call(f"http://127.0.0.1:{server.port}", session=client, headers=headers)
    assert (reply.status_code == 200) is (path not in NOTHING_THERE), reply.text
    case.validate_response(reply, checks=as_described())


@pytest.mark.parametrize(
    "method", ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"]
)
def test_every_method_on_every_path_is_answered(registry, client, method):
    for path in sorted({path for _, path in operations()}):
        url = f"http://127.0.0.1:{registry.port}{path.replace('{', '').replace('}', '')}"
        reply = client.request(method, url, timeout=ANSWERED_WITHIN_S)
        assert reply.status_code < 500 or is_known(reply.text) or method == "HEAD", (method, path, reply.text)


def test_what_all_that_left_is_the_same_after_a_restart(registry, folder):
    before = remains(registry)
    assert before["keys"]
    assert after_a_restart(registry, folder) == before
