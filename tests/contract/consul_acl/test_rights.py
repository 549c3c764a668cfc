"""What each kind of token may see and do: the same on `milkrun registry --acl closed` as on Consul 1.8.7."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from contract.consul_acl.registries import MASTER, TOKENS, Answer, Both, Held, secret

pytestmark = pytest.mark.needs("consul")

HOLDERS = ["anonymous", "unknown", *TOKENS, "master"]
READS = [
    "/v1/kv/shop/a", "/v1/kv/shop/secret", "/v1/kv/shop/?recurse", "/v1/kv/?keys", "/v1/kv/?keys&separator=/",
    "/v1/kv/other", "/v1/kv/missing", "/v1/kv/shop/missing",
    "/v1/catalog/nodes", "/v1/catalog/services", "/v1/catalog/service/goat", "/v1/catalog/service/cow",
    "/v1/catalog/node/n1", "/v1/catalog/node/n2", "/v1/catalog/node-services/n1", "/v1/catalog/datacenters",
    "/v1/health/service/goat", "/v1/health/service/hen", "/v1/health/checks/goat", "/v1/health/node/n1",
    "/v1/health/state/any", "/v1/session/list", "/v1/session/node/n2", "/v1/event/list",
    "/v1/agent/services", "/v1/agent/service/goat-1", "/v1/agent/service/hen-1", "/v1/agent/checks",
    "/v1/agent/health/service/name/goat", "/v1/agent/health/service/id/hen-1", "/v1/agent/self",
    "/v1/agent/members", "/v1/agent/metrics", "/v1/internal/ui/services", "/v1/internal/ui/nodes",
    "/v1/internal/ui/node/n1", "/v1/status/leader", "/v1/coordinate/datacenters", "/v1/coordinate/node/n1",
    "/v1/operator/raft/configuration", "/v1/query", "/v1/snapshot",
    "/v1/acl/token/self", "/v1/acl/tokens", "/v1/acl/policies", "/v1/acl/replication", "/v1/acl/roles",
]  # fmt: skip
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "/v1/kv/shop/{}", b"v"),
    ("PUT", "/v1/kv/shop/secret", b"v"),
    ("PUT", "/v1/kv/{}", b"v"),
    ("DELETE", "/v1/kv/shop/{}", None),
    ("DELETE", "/v1/kv/shop/none/?recurse", None),
    ("DELETE", "/v1/kv/shop/secret?recurse", None),
    ("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": "shop/txn", "Value": "dg=="}}]),
    (
        "PUT",
        "/v1/txn",
        [{"KV": {"Verb": "get", "Key": "shop/secret"}}, {"KV": {"Verb": "get", "Key": "other"}}],
    ),
    ("PUT", "/v1/txn", [{"KV": {"Verb": "check-not-exists", "Key": "other-none"}}]),
    ("PUT", "/v1/txn", [{"KV": {"Verb": "delete-tree", "Key": "shop/none/"}}]),
    ("PUT", "/v1/txn", [{"Node": {"Verb": "set", "Node": {"Node": "n2", "Address": "10.0.0.2"}}}]),
    (
        "PUT",
        "/v1/txn",
        [{"Service": {"Verb": "set", "Node": "n2", "Service": {"ID": "g", "Service": "goat"}}}],
    ),
    (
        "PUT",
        "/v1/txn",
        [
            {
                "Check": {
                    "Verb": "set",
                    "Check": {"Node": "n2", "CheckID": "disk", "Name": "disk", "Status": "passing"},
                }
            }
        ],
    ),
    ("PUT", "/v1/agent/service/register", {"Name": "goat", "ID": "goat-{}"}),
    ("PUT", "/v1/agent/service/register", {"Name": "goat", "ID": "duck-1"}),
    ("PUT", "/v1/agent/service/register", {"Name": "pig", "ID": "pig-{}"}),
    ("PUT", "/v1/agent/service/deregister/goat-{}", None),
    ("PUT", "/v1/agent/service/maintenance/hen-1?enable=false", None),
    ("PUT", "/v1/agent/maintenance?enable=false", None),
    ("PUT", "/v1/agent/check/register", {"Name": "of-goat-{}", "ServiceID": "goat-1", "TTL": "1h"}),
    ("PUT", "/v1/agent/check/register", {"Name": "of-node-{}", "TTL": "1h"}),
    ("PUT", "/v1/agent/check/pass/check-goat", None),
    ("PUT", "/v1/agent/check/pass/check-hen", None),
    ("PUT", "/v1/agent/check/deregister/of-goat-{}", None),
    (
        "PUT",
        "/v1/catalog/register",
        {"Node": "n2", "Address": "10.0.0.2", "Service": {"ID": "g-{}", "Service": "goat"}},
    ),
    ("PUT", "/v1/catalog/register", {"Node": "new-{}", "Address": "10.0.0.4"}),
    ("PUT", "/v1/catalog/deregister", {"Node": "n2", "ServiceID": "g-{}"}),
    ("PUT", "/v1/catalog/deregister", {"Node": "new-{}"}),
    ("PUT", "/v1/session/create", {"Checks": []}),
    ("PUT", "/v1/session/create", {"Node": "n2", "Checks": []}),
    ("PUT", "/v1/event/fire/milk", None),
    ("PUT", "/v1/event/fire/hay", None),
    ("PUT", "/v1/agent/reload", None),
    ("PUT", "/v1/agent/force-leave/nobody", None),
    ("DELETE", "/v1/operator/raft/peer?address=10.0.0.9:8300", None),
    ("PUT", "/v1/acl/policy", {"Name": "new-{}", "Rules": ""}),
    ("PUT", "/v1/acl/token", {"Description": "new-{}"}),
    ("PUT", "/v1/acl/bootstrap", None),
]

_GONE = "what is not there need not be taken out; Consul says so, but not when it has no tokens"
_BY_ID = "Consul 1.8 asks for the right on the id of the node's service, where its name is meant"
DIFFERENT: dict[str, str] = {
    "/v1/catalog/node/n1 goat": _BY_ID,
    "/v1/catalog/node/n1 goat-looks": _BY_ID,
    "8 PUT /v1/txn reads": "whether a key is there shows to who may read it; Consul asks for the right to write",
    "16 PUT /v1/agent/service/deregister/goat-{}": _GONE,
    "23 PUT /v1/agent/check/deregister/of-goat-{}": _GONE,
    "26 PUT /v1/catalog/deregister": _GONE,
    "30 PUT /v1/event/fire/milk unknown": "a token that is none is always 403; here Consul says 500",
    "31 PUT /v1/event/fire/hay unknown": "as above",
    "/v1/internal/ui/node/n1": "who may not read the node is told so with 403; Consul says 404",
}
"""Where we differ on purpose, and why: a path for all who hold a token, or one of them."""


_NAMING = (
    ("KV",),
    ("Node", "CheckID"),
    ("Node", "Services", "Checks"),
    ("Node", "ServiceID"),
    ("Key",),
    ("Name", "Nodes"),
    ("Node",),
    ("Name",),
    ("ID", "Service"),
    ("Description",),
)
_EVERYTHING = ("Master Token", "Initial Management Token")
_WITHIN = ("KV", "Services", "Checks")


def headers(holder: str) -> dict[str, str]:
    if holder == "anonymous":
        return {}
    if holder == "unknown":
        return {"X-Consul-Token": "0a0a0a0a-0000-0000-0000-000000000000"}
    return {"X-Consul-Token": MASTER if holder == "master" else secret(holder)}


def gist(value: Any) -> Any:
    """What of an answer a right decides about: the names of what is shown."""
    if isinstance(value, list):
        return sorted((gist(each) for each in value), key=repr)
    if isinstance(value, str):
        return re.sub(r"127\.0\.0\.1:\d+", "<address>", value)
    if not isinstance(value, dict):
        return value
    if value.get("Description", "") in _EVERYTHING:
        return "what may do everything"
    if "Errors" in value and "Results" in value:
        return [(each["OpIndex"], each["What"]) for each in value["Errors"] or []], gist(
            value["Results"] or []
        )
    if set(value) == {"Node", "Services"}:
        return gist(value["Node"]), gist(value["Services"])
    if isinstance(value.get("Node"), dict):
        return value["Node"].get("Node"), value.get("Service", {}).get("ID")
    for fields in _NAMING:
        if all(field in value for field in fields):
            return tuple(gist(value[field]) if field in _WITHIN else value[field] for field in fields)
    return sorted(value)


def outcome(answer: Answer) -> Any:
    if answer.status != 200:
        return answer.status, answer.text.partition(":")[0] if answer.status == 403 else ""
    try:
        return 200, gist(json.loads(answer.body))
    except ValueError:
        return 200, ""


def compared(both: Both, what: str, holder: str, ask: Any) -> str:
    mine, theirs = (outcome(ask(each)) for each in both)
    same = mine == theirs
    name = f"{what} {holder}"
    if why := DIFFERENT.get(name, DIFFERENT.get(what)):
        return f"{name} does not differ any more ({why})" if same and name in DIFFERENT else ""
    return "" if same else f"{name}:\n    ours   {mine}\n    consul {theirs}"


@pytest.mark.parametrize("path", READS)
def test_each_token_sees_the_same(both, path):
    wrong = []
    for holder in HOLDERS:

        def ask(server: Held, holder: str = holder) -> Answer:
            return server.ask("GET", path, headers=headers(holder))

        if found := compared(both, path, holder, ask):
            wrong.append(found)
    assert not wrong, "\n".join(wrong)


def filled(body: Any, word: str) -> Any:
    return json.loads(json.dumps(body).replace("{}", word)) if isinstance(body, dict) else body


@pytest.mark.parametrize(
    "number", range(len(WRITES)), ids=lambda number: f"{WRITES[number][0]} {WRITES[number][1]} {number}"
)
def test_each_token_changes_the_same(both, number):
    method, path, body = WRITES[number]
    wrong = []
    for holder in HOLDERS:

        def ask(server: Held, holder: str = holder) -> Answer:
            return server.ask(method, path.format(holder), filled(body, holder), headers(holder))

        if found := compared(both, f"{number} {method} {path}", holder, ask):
            wrong.append(found)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"Authorization": f"Bearer {secret('shop')}"}, 200),
        ({"authorization": f"bearer {secret('shop')}"}, None),
        ({"Authorization": f"Bearer   {secret('shop')}"}, None),
        ({"Authorization": "Bearer"}, None),
        ({"Authorization": "Bearer 0a0a0a0a-0000-0000-0000-000000000000"}, 403),
        ({"Authorization": f"Basic {base64.b64encode(f'user:{MASTER}'.encode()).decode()}"}, 403),
        ({"Authorization": f"Basic {secret('shop')}"}, 403),
        ({"X-Consul-Token": secret("shop"), "Authorization": f"Bearer {secret('goat')}"}, 200),
        ({"X-Consul-Token": secret("goat"), "Authorization": f"Bearer {secret('shop')}"}, 403),
        ({"x-consul-token": secret("shop")}, 200),
        ({"X-Consul-Token": secret("shop").upper()}, None),
        ({"X-Consul-Token": ""}, 403),
        ({"X-Consul-Token": "", "Authorization": f"Bearer {secret('shop')}"}, None),
        ({"X-Consul-Token": "x" * 3000}, 403),
        ({"X-Consul-Token": "anonymous"}, None),
    ],
    ids=lambda given: (
        " ".join(f"{name}={value[:24]}" for name, value in given.items()) if isinstance(given, dict) else ""
    ),
)
def test_where_a_token_is_shown(both, given, status):
    mine, theirs = (each.ask("GET", "/v1/kv/shop/a", headers=given).status for each in both)

    assert mine == theirs
    assert status is None or mine == status


def test_a_read_that_was_narrowed_says_so_and_no_other_does(both):
    """Consul says so from 1.11 on; what its clients look for is this header."""
    mark = "X-Consul-Results-Filtered-By-ACLs"
    for path, holder, marked in [
        ("/v1/health/service/goat", "goat", False),
        ("/v1/health/service/goat", "goat-looks", True),
        ("/v1/health/service/goat", "nothing", True),
        ("/v1/health/service/goat", "reads", False),
        ("/v1/kv/?recurse", "shop", True),
        ("/v1/kv/shop/?recurse", "reads", False),
        ("/v1/kv/?keys", "shop", True),
        ("/v1/catalog/services", "goat", True),
        ("/v1/catalog/services", "master", False),
        ("/v1/health/service/none-of-them", "nothing", False),
    ]:
        answer = both.ours.ask("GET", path, headers=headers(holder))
        assert (answer.headers.get(mark) == "true") is marked, f"{path} {holder}: {answer.headers}"
