"""What is there is shown as docs/openapi.json says."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest
from bad_input.description import operations
from conformance.registries import NODE

MANAGEMENT, ANONYMOUS = (f"00000000-0000-0000-0000-00000000000{last}" for last in "12")
"""The policy and the token that every registry has."""
NOTHING_THERE = ("/v1/coordinate/node/{node}", "/v1/operator/keyring", "/v1/agent/monitor")
"""What one server has not."""


@pytest.fixture(scope="module")
def there(registry, guarded):
    """Something of each kind, and by which parameters it is asked for."""
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
    role = {"Name": "goat", "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}]}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", guarded.port)) as connection:
        connection.request("PUT", "/v1/acl/role", json.dumps(role), {"X-Consul-Token": guarded.token})
        made = json.loads(connection.getresponse().read())
    names = dict.fromkeys(("key", "service", "id"), "goat")
    return {
        **names,
        "node": NODE,
        "state": "any",
        "session": session,
        "policy": MANAGEMENT,
        "accessor": ANONYMOUS,
        "role": made["ID"],
        "template": "builtin/service",
    }


@pytest.mark.parametrize("path", [path for method, path in operations() if method == "get"])
def test_what_is_there_is_shown_as_described(described, send, there, path):
    rest = {name: value for name, value in there.items() if f"{{{name}}}" in path}
    case = described[path]["get"].Case(path_parameters=rest)
    reply = send(case)
    assert (reply.status_code == 200) is (path not in NOTHING_THERE), reply.text
