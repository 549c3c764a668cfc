"""/v1/acl over time: what has expired is there for nobody, and what a token may do is what was asked for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from milkrun.registry.access.authority import Gate, Mode
from milkrun.registry.access.tokens import digest_of
from milkrun.registry.engine import Engine
from milkrun.registry.http.app import App
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.nouns import Node
from milkrun.registry.storage import Storage

OWN = Node(id="00000000-0000-0000-0000-000000000001", node="n1", address="127.0.0.1")
MASTER = "the-own-token-the-own-token-the-own"
START = 1_800_000_000.0


class Site:
    """A registry with a wall clock that the test moves; a restart reads its disk again."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.clock = START
        self.restart()

    def restart(self) -> None:
        self.engine = Engine(
            self._storage, OWN, gate=Gate(Mode.CLOSED, digest_of(MASTER.encode()), lambda: self.clock)
        )

    async def ask(self, method: str, target: str, body: Any = None, token: str = MASTER) -> Reply:
        raw = b"" if body is None else json.dumps(body).encode()
        request = Request(method, target.encode(), [], raw, size=len(raw), secret=token.encode())
        return await App(self.engine)(request)

    async def must(self, method: str, target: str, body: Any = None) -> Any:
        reply = await self.ask(method, target, body)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    async def listed(self, query: str = "") -> list[str]:
        return sorted(each["Description"] for each in await self.must("GET", f"/v1/acl/tokens{query}"))


BUILT_IN = ["Anonymous Token", "Initial Management Token"]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    with Storage(tmp_path) as storage:
        found = Site(storage)
        await found.engine.announce()
        yield found


async def test_what_has_expired_is_there_for_nobody(site):
    made = await site.must("PUT", "/v1/acl/token", {"Description": "brief", "ExpirationTTL": "10m"})
    accessor = made["AccessorID"]
    assert made["ExpirationTime"] == "2027-01-15T08:10:00.000000Z"

    site.clock = START + 599.9
    for _ in range(2):
        assert (await site.ask("GET", "/v1/acl/token/self", token=made["SecretID"])).status == 200
        assert await site.listed() == [*BUILT_IN, "brief"]
        site.restart()

    site.clock = START + 600
    for _ in range(2):
        assert (await site.ask("GET", "/v1/acl/token/self", token=made["SecretID"])).status == 403
        assert (await site.ask("GET", f"/v1/acl/token/{accessor}")).status == 403
        assert (await site.ask("PUT", f"/v1/acl/token/{accessor}", {})).status == 500
        assert (await site.ask("PUT", f"/v1/acl/token/{accessor}/clone")).status == 500
        assert await site.listed() == BUILT_IN
        site.restart()


async def test_a_restored_snapshot_revives_nothing(site):
    made = await site.must("PUT", "/v1/acl/token", {"ExpirationTTL": "10m"})
    snapshot = (await site.ask("GET", "/v1/snapshot")).body
    await site.must("DELETE", f"/v1/acl/token/{made['AccessorID']}")
    site.clock = START + 3600
    request = Request("PUT", b"/v1/snapshot", [], snapshot, size=len(snapshot), secret=MASTER.encode())
    assert (await App(site.engine)(request)).status == 200

    assert (await site.ask("GET", "/v1/acl/token/self", token=made["SecretID"])).status == 403


async def test_the_place_of_what_has_expired_is_free_again(site):
    accessor = "0000000a-0000-0000-0000-00000000000a"
    body = {"AccessorID": accessor, "SecretID": "s" * 32}
    await site.must("PUT", "/v1/acl/token", {**body, "ExpirationTTL": "1m"})
    assert (await site.ask("PUT", "/v1/acl/token", body)).status == 500

    site.clock = START + 60
    again = await site.must("PUT", "/v1/acl/token", {**body, "Description": "again"})
    assert "ExpirationTime" not in again
    assert (await site.ask("GET", "/v1/acl/token/self", token="s" * 32)).status == 200
    assert await site.listed() == [*BUILT_IN, "again"]


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"ExpirationTTL": "59s"}, 500, "cannot be less than 1m0s in the future (was 59s)"),
        ({"ExpirationTTL": "25h"}, 500, "cannot be more than 24h0m0s in the future (was 25h0m0s)"),
        ({"ExpirationTTL": "-1h"}, 500, "Token Expiration TTL '-1h0m0s' should be > 0"),
        ({"ExpirationTTL": "soon"}, 400, 'time: invalid duration "soon"'),
        ({"ExpirationTime": "2027-01-15T08:00:00Z"}, 500, "ExpirationTime cannot be before CreateTime"),
        ({"ExpirationTime": "2027-01-15T08:10:00"}, 400, "Token decoding failed"),
        ({"ExpirationTime": "2027-01-15T08:10:00Z", "ExpirationTTL": "5m"}, 500, "cannot both be set"),
        ({"AuthMethod": "jwt"}, 500, "disallowed outside of Login"),
        ({"AccessorID": "g" * 36}, 400, "AccessorID is not a UUID"),
        ({"Roles": [{"Name": "none"}]}, 500, 'No such ACL role with name "none"'),
        (
            {"TemplatedPolicies": [{"TemplateName": "builtin/nomad-server"}]},
            400,
            "no such ACL templated policy",
        ),
        ({"TemplatedPolicies": [{"TemplateName": "builtin/node"}]}, 400, "takes a name"),
        ({"NodeIdentities": [{"NodeName": 'n" {', "Datacenter": "dc1"}]}, 500, "invalid name"),
        ({"ServiceIdentities": [{"ServiceName": 'n" {'}]}, 500, "invalid name"),
        (
            {"Local": True, "ServiceIdentities": [{"ServiceName": "goat", "Datacenters": ["dc1"]}]},
            500,
            "cannot specify a list of datacenters on a local token",
        ),
    ],
)
async def test_what_cannot_be_true_is_refused_and_makes_nothing(site, asked, status, why):
    index = site.engine.machine.ledger.index
    reply = await site.ask("PUT", "/v1/acl/token", asked)

    assert (reply.status, why in reply.body.decode()) == (status, True), reply.body
    assert site.engine.machine.ledger.index == index


async def test_an_update_leaves_the_end_and_the_place_as_they_are(site):
    made = await site.must(
        "PUT", "/v1/acl/token", {"ExpirationTime": "2027-01-15T09:00:00.5+00:30", "Local": True}
    )
    target = f"/v1/acl/token/{made['AccessorID'].upper()}"
    told = {"Local": True, "ExpirationTime": made["ExpirationTime"], "Description": "told"}

    assert (await site.must("PUT", target, told))["ExpirationTime"] == made["ExpirationTime"]
    for other in ({"ExpirationTime": "2027-01-15T09:00:00Z"}, {"ExpirationTTL": "10m"}, {"Local": False}):
        assert (await site.ask("PUT", target, {**told, **other})).status == 500
    assert (await site.must("GET", target))["ExpirationTime"] == "2027-01-15T08:30:00.500000Z"


async def test_tokens_are_found_by_what_they_have(site):
    policy = (await site.must("PUT", "/v1/acl/policy", {"Name": "p"}))["ID"]
    role = (await site.must("PUT", "/v1/acl/role", {"Name": "r", "Policies": [{"Name": "p"}]}))["ID"]
    for name, body in {
        "by policy": {"Policies": [{"ID": policy}]},
        "by role": {"Roles": [{"ID": role}]},
        "by service": {"ServiceIdentities": [{"ServiceName": "goat"}]},
    }.items():
        await site.must("PUT", "/v1/acl/token", {"Description": name, **body})

    assert await site.listed(f"?policy={policy}") == ["by policy"]
    assert await site.listed(f"?role={role}") == ["by role"]
    assert await site.listed("?servicename=goat") == ["by service"]
    assert await site.listed("?authmethod=jwt") == []
    assert [each["Name"] for each in await site.must("GET", f"/v1/acl/roles?policy={policy}")] == ["r"]
    assert await site.must("GET", f"/v1/acl/roles?policy={role}") == []


async def test_an_identity_that_is_named_twice_holds_wherever_one_of_them_does(site):
    def identity(*datacenters: str) -> dict[str, Any]:
        return {"ServiceName": "goat", "Datacenters": list(datacenters)}

    for given, kept in (
        ([identity("dc2"), identity("dc1", "dc2")], [identity("dc1", "dc2")]),
        ([identity("dc2"), identity()], [{"ServiceName": "goat"}]),
        ([identity(), identity("dc2")], [{"ServiceName": "goat"}]),
    ):
        made = await site.must("PUT", "/v1/acl/token", {"ServiceIdentities": given})
        assert made["ServiceIdentities"] == kept


async def test_a_template_says_what_it_grants_and_grants_it(site):
    shown = await site.must("POST", "/v1/acl/templated-policy/preview/builtin/node", {"Name": "n9"})
    made = await site.must(
        "PUT",
        "/v1/acl/token",
        {"TemplatedPolicies": [{"TemplateName": "builtin/node", "TemplateVariables": {"Name": "n9"}}]},
    )
    assert 'node "n9"' in shown["Rules"]
    policy = (await site.must("PUT", "/v1/acl/policy", {"Name": "same", "Rules": shown["Rules"]}))["ID"]
    same = await site.must("PUT", "/v1/acl/token", {"Policies": [{"ID": policy}]})

    for each in (made, same):
        for node, status in (("n9", 200), ("n8", 403)):
            body = {"Node": node, "Address": "10.0.0.9"}
            reply = await site.ask("PUT", "/v1/catalog/register", body, token=each["SecretID"])
            assert reply.status == status
        await site.must("PUT", "/v1/catalog/deregister", {"Node": "n9"})


async def test_nobody_logs_in_or_out(site):
    for target in ("/v1/acl/login", "/v1/acl/logout"):
        reply = await site.ask("POST", target, {"AuthMethod": "jwt", "BearerToken": "x"})
        assert reply.status == 403
