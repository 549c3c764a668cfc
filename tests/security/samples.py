"""A realistic request to every route, about things that are there, and what a client must be allowed for it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from milkrun.registry import commands
from milkrun.registry.access.tokens import Policy, Role, Token, digest_of
from milkrun.registry.events import Event
from milkrun.registry.nouns import CheckSpec, Node, Service, Session
from milkrun.registry.snapshot import pack
from milkrun.registry.state import Machine

OWN = Node(id="00000000-0000-0000-0000-00000000000a", node="n1", address="127.0.0.1")
SESSION = "00000000-0000-0000-0000-0000000000aa"
POLICY = "00000000-0000-0000-0000-0000000000bb"
TOKEN = "00000000-0000-0000-0000-0000000000cc"
ROLE = "00000000-0000-0000-0000-0000000000ab"
SOMEBODYS = b"somebodys-secret-somebodys-secret"

NAMES = {
    "agent": "n1",
    "event": "milk",
    "key": "shop/a",
    "node": "n1",
    "query": "",
    "service": "goat",
    "session": "n1",
}
"""What the requests are about, by the kind of rule that speaks of it."""


class Sample(msgspec.Struct, frozen=True):
    """`rest` follows the route's path. `shows` is what of the answer is to be hidden; None: it hides nothing.

    `names` are other names than NAMES; with `prefix` the rule that it takes is one on a prefix. `access` is
    said where this request takes another one than the route.
    """

    rest: str = ""
    body: Any = None
    shows: str | None = None
    names: dict[str, str] = {}
    prefix: bool = False
    access: str = ""

    @property
    def raw(self) -> bytes:
        return (
            self.body
            if isinstance(self.body, bytes)
            else json.dumps(self.body).encode()
            if self.body
            else b""
        )

    def name(self, resource: str) -> str:
        return (NAMES | self.names).get(resource, "")


def populated() -> Machine:
    """One of everything that the requests are about, and another one beside it."""
    machine = Machine("n1")
    for command in (
        commands.Announce(OWN),
        *(
            commands.RegisterService(
                Service(id=f"{name}-1", service=name, tags=[f"tag-of-{name}"]),
                [CheckSpec(check_id=f"check-{name}", status="passing", service_id=f"{name}-1", ttl_s=1000.0)],
            )
            for name in ("goat", "hen")
        ),
        commands.CatalogRegister(
            "n2", Node(node="n2", address="10.0.0.2"), Service(id="cow-1", service="cow"), []
        ),
        commands.KvPut("shop/a", b"milk-and-honey"),
        commands.KvPut("other", b"hay"),
        commands.CreateSession(Session(id=SESSION, node="n1", name="the-session", node_checks=[])),
        commands.PutPolicy(Policy(id=POLICY, name="the-policy", text='key "x" { policy = "read" }')),
        commands.PutRole(Role(id=ROLE, name="the-role", policies=[POLICY])),
        commands.PutToken(
            Token(accessor=TOKEN, digest=digest_of(SOMEBODYS), description="the-token", policies=[POLICY])
        ),
    ):
        machine.apply(command, 1000.0)
    return machine


EVENT = commands.HearEvent(Event(id="00000000-0000-0000-0000-0000000000dd", name="milk", payload=b"now"))


def _operation(verb: str, **more: Any) -> list[dict[str, Any]]:
    return [{"KV": {"Verb": verb, "Key": "shop/a", **more}}]


def _cat(name: str, **more: Any) -> dict[str, Any]:
    return {"Node": name, "Address": "10.0.0.9", **more}


SAMPLES: dict[tuple[str, str], list[Sample]] = {
    ("GET", "/v1/kv/"): [
        Sample("shop/a", shows="shop/a"),
        Sample("shop/a?raw", shows="honey"),
        Sample("shop/?recurse", shows="shop/a"),
        Sample("?recurse", shows="shop/a"),
        Sample("shop/?keys", shows="shop/a"),
        Sample("?keys&separator=/", shows="shop/"),
    ],
    ("PUT", "/v1/kv/"): [
        Sample("shop/a", b"new"),
        Sample("shop/new", b"new", names={"key": "shop/new"}),
        Sample("shop/a?cas=0", b"new"),
        Sample(f"shop/a?acquire={SESSION}", b"new"),
        Sample(f"shop/a?release={SESSION}", b"new"),
    ],
    ("DELETE", "/v1/kv/"): [
        Sample("shop/a"),
        Sample("shop/a?cas=1"),
        Sample("shop/?recurse", names={"key": "shop/"}, prefix=True),
    ],
    ("GET", "/v1/agent/self"): [Sample(shows="DebugConfig")],
    ("GET", "/v1/agent/members"): [Sample(shows='"n1"')],
    ("GET", "/v1/agent/services"): [Sample(shows="goat"), Sample('?filter=Service=="goat"', shows="goat")],
    ("GET", "/v1/agent/service/"): [Sample("goat-1", shows="goat")],
    ("GET", "/v1/agent/checks"): [Sample(shows="check-goat")],
    ("PUT", "/v1/agent/service/register"): [
        Sample(body={"Name": "goat", "ID": "goat-2"}),
        Sample(body={"Name": "goat", "ID": "goat-1", "Port": 7, "Check": {"TTL": "9s"}}),
        Sample(body={"Name": "new"}, names={"service": "new"}),
    ],
    ("PUT", "/v1/agent/service/deregister/"): [Sample("goat-1")],
    ("PUT", "/v1/agent/service/maintenance/"): [Sample("goat-1?enable=true")],
    ("PUT", "/v1/agent/maintenance"): [Sample("?enable=true")],
    ("GET", "/v1/agent/health/service/id/"): [
        Sample("goat-1", shows="goat"),
        Sample("goat-1?format=text", shows="passing"),
    ],
    ("GET", "/v1/agent/health/service/name/"): [Sample("goat", shows="goat")],
    ("PUT", "/v1/agent/reload"): [Sample()],
    ("PUT", "/v1/agent/check/register"): [
        Sample(body={"Name": "new", "ServiceID": "goat-1", "TTL": "10s"}),
        Sample(body={"Name": "check-goat", "ServiceID": "goat-1", "TTL": "20s"}),
    ],
    ("PUT", "/v1/agent/check/deregister/"): [Sample("check-goat")],
    ("PUT", "/v1/agent/check/pass/"): [Sample("check-goat?note=well")],
    ("PUT", "/v1/agent/check/warn/"): [Sample("check-goat")],
    ("PUT", "/v1/agent/check/fail/"): [Sample("check-goat")],
    ("PUT", "/v1/agent/check/update/"): [Sample("check-goat", {"Status": "warning", "Output": "o"})],
    ("GET", "/v1/catalog/datacenters"): [Sample()],
    ("GET", "/v1/catalog/nodes"): [Sample(shows='"n1"')],
    ("GET", "/v1/catalog/services"): [Sample(shows='"goat"')],
    ("GET", "/v1/catalog/service/"): [
        Sample("goat", shows="goat-1"),
        Sample("goat?tag=tag-of-goat", shows="goat-1"),
    ],
    ("GET", "/v1/catalog/node/"): [Sample("n1", shows="127.0.0.1")],
    ("GET", "/v1/catalog/node-services/"): [Sample("n1", shows="127.0.0.1")],
    ("GET", "/v1/catalog/connect/"): [Sample("goat")],
    ("PUT", "/v1/catalog/register"): [
        Sample(body=_cat("n9"), names={"node": "n9"}),
        Sample(body=_cat("n2"), names={"node": "n2"}),
        Sample(body=_cat("n2", Check={"Name": "disk", "Status": "passing"}), names={"node": "n2"}),
    ],
    ("PUT", "/v1/catalog/deregister"): [Sample(body={"Node": "n2"}, names={"node": "n2"})],
    ("GET", "/v1/health/service/"): [
        Sample("goat", shows="goat-1"),
        Sample("goat?passing", shows="goat-1"),
        Sample('goat?filter=Service.ID=="goat-1"', shows="goat-1"),
    ],
    ("GET", "/v1/health/checks/"): [Sample("goat", shows="check-goat")],
    ("GET", "/v1/health/node/"): [Sample("n1", shows="serfHealth")],
    ("GET", "/v1/health/state/"): [Sample("any", shows="check-goat"), Sample("passing", shows="check-goat")],
    ("GET", "/v1/health/connect/"): [Sample("goat")],
    ("PUT", "/v1/session/create"): [
        Sample(),
        Sample(body={"Node": "n2", "Checks": []}, names={"session": "n2"}),
    ],
    ("PUT", "/v1/session/destroy/"): [Sample(SESSION)],
    ("PUT", "/v1/session/renew/"): [Sample(SESSION)],
    ("GET", "/v1/session/info/"): [Sample(SESSION, shows="the-session")],
    ("GET", "/v1/session/list"): [Sample(shows="the-session")],
    ("GET", "/v1/session/node/"): [Sample("n1", shows="the-session")],
    ("PUT", "/v1/txn"): [
        Sample(body=_operation("set", Value="aGF5")),
        Sample(body=_operation("delete")),
        Sample(body=_operation("lock", Value="aGF5", Session=SESSION)),
        Sample(body=[{"KV": {"Verb": "delete-tree", "Key": "shop/"}}], names={"key": "shop/"}, prefix=True),
        Sample(body=_operation("get") + _operation("set", Value="aGF5")),
        Sample(body=_operation("get"), shows="shop/a", access="read"),
        Sample(body=[{"KV": {"Verb": "get-tree", "Key": "shop/"}}], shows="shop/a", access="read"),
    ],
    ("GET", "/v1/status/leader"): [Sample()],
    ("GET", "/v1/status/peers"): [Sample()],
    ("PUT", "/v1/event/fire/"): [Sample("milk", b"more"), Sample("milk?node=^other$", b"not for here")],
    ("GET", "/v1/event/list"): [Sample(shows="milk"), Sample("?name=milk", shows="milk")],
    ("GET", "/v1/agent/metrics"): [
        Sample(shows="kv_entries"),
        Sample("?format=prometheus", shows="kv_entries"),
    ],
    ("GET", "/v1/coordinate/datacenters"): [Sample()],
    ("GET", "/v1/coordinate/nodes"): [Sample()],
    ("GET", "/v1/coordinate/node/"): [Sample("n1")],
    ("GET", "/v1/operator/raft/configuration"): [Sample(shows="Servers")],
    ("GET", "/v1/operator/autopilot/health"): [Sample(shows="Servers")],
    ("GET", "/v1/internal/ui/services"): [Sample(shows='"goat"')],
    ("GET", "/v1/internal/ui/nodes"): [Sample(shows='"n1"')],
    ("GET", "/v1/internal/ui/node/"): [Sample("n1", shows="127.0.0.1")],
    ("GET", "/v1/connect/ca/roots"): [Sample()],
    ("GET", "/v1/agent/connect/ca/roots"): [Sample()],
    ("GET", "/v1/connect/intentions"): [Sample()],
    ("GET", "/v1/query"): [Sample()],
    ("GET", "/v1/health/ingress/"): [Sample("goat")],
    ("GET", "/v1/catalog/gateway-services/"): [Sample("goat")],
    ("GET", "/v1/operator/autopilot/configuration"): [Sample(shows="CleanupDeadServers")],
    ("PUT", "/v1/operator/autopilot/configuration"): [Sample(body={"CleanupDeadServers": False})],
    ("GET", "/v1/operator/usage"): [Sample(shows="ServiceInstances")],
    ("POST", "/v1/operator/raft/transfer-leader"): [Sample()],
    ("DELETE", "/v1/operator/raft/peer"): [Sample("?address=10.0.0.1:8300")],
    ("GET", "/v1/operator/keyring"): [Sample()],
    ("GET", "/v1/agent/monitor"): [Sample()],
    ("PUT", "/v1/agent/join/"): [Sample("10.0.0.1")],
    ("PUT", "/v1/agent/leave"): [Sample()],
    ("PUT", "/v1/agent/force-leave/"): [Sample("n1")],
    ("GET", "/v1/snapshot"): [Sample(shows="milkrun-registry-snapshot")],
    ("PUT", "/v1/snapshot"): [Sample(body=pack(populated().whole())), Sample(body=b"no snapshot")],
    ("PUT", "/v1/acl/bootstrap"): [Sample()],
    ("GET", "/v1/acl/token/self"): [Sample(shows="AccessorID")],
    ("GET", "/v1/acl/tokens"): [Sample(shows="the-token")],
    ("PUT", "/v1/acl/token"): [Sample(body={"Description": "new"})],
    ("GET", "/v1/acl/token/"): [Sample(TOKEN, shows="the-token")],
    ("PUT", "/v1/acl/token/"): [Sample(TOKEN, {"Description": "new"}), Sample(f"{TOKEN}/clone")],
    ("DELETE", "/v1/acl/token/"): [Sample(TOKEN)],
    ("GET", "/v1/acl/policies"): [Sample(shows="the-policy")],
    ("PUT", "/v1/acl/policy"): [Sample(body={"Name": "new", "Rules": ""})],
    ("GET", "/v1/acl/policy/"): [
        Sample(POLICY, shows="the-policy"),
        Sample("name/the-policy", shows="the-policy"),
    ],
    ("PUT", "/v1/acl/policy/"): [Sample(POLICY, {"Name": "the-policy", "Rules": 'acl = "write"'})],
    ("DELETE", "/v1/acl/policy/"): [Sample(POLICY)],
    ("GET", "/v1/acl/roles"): [Sample(shows="the-role"), Sample(f"?policy={POLICY}", shows="the-role")],
    ("PUT", "/v1/acl/role"): [Sample(body={"Name": "new", "Policies": [{"Name": "the-policy"}]})],
    ("GET", "/v1/acl/role/"): [
        Sample(ROLE, shows="the-role"),
        Sample("name/the-role", shows="the-role"),
    ],
    ("PUT", "/v1/acl/role/"): [Sample(ROLE, {"Name": "the-role", "Policies": []})],
    ("DELETE", "/v1/acl/role/"): [Sample(ROLE)],
    ("GET", "/v1/acl/templated-policies"): [Sample(shows="builtin/service")],
    ("GET", "/v1/acl/templated-policy/name/"): [Sample("builtin/node", shows="builtin/node")],
    ("POST", "/v1/acl/templated-policy/preview/"): [
        Sample("builtin/service", {"Name": "goat"}, shows="goat"),
    ],
    ("POST", "/v1/acl/login"): [Sample(body={"AuthMethod": "none", "BearerToken": "x"})],
    ("POST", "/v1/acl/logout"): [Sample()],
    ("GET", "/v1/acl/auth-methods"): [Sample()],
    ("GET", "/v1/acl/binding-rules"): [Sample()],
    ("GET", "/v1/acl/replication"): [Sample()],
    ("PUT", "/v1/agent/token/"): [Sample("agent", {"Token": "x"})],
}
