"""`consul catalog`, `services`, `maint`, `members`, `info`, `event`: what they show of ours and of Consul."""

from __future__ import annotations

import json
import re

import pytest
from conformance.registries import NODE, eventually

pytestmark = pytest.mark.needs("consul")

DEFINITION = {
    "service": {
        "id": "given below",
        "name": "given below",
        "tags": ["version=1", "b"],
        "address": "10.1.2.3",
        "port": 8101,
        "meta": {"version": "1"},
        "weights": {"passing": 5, "warning": 2},
        "check": {"ttl": "600s", "status": "passing", "notes": "n"},
    }
}


def registered(both, name, file, **fields):
    service = {**DEFINITION["service"], "id": f"{name}-1", "name": name, **fields}
    file.write_text(json.dumps({"service": service}))
    assert both.tell("services", "register", str(file)) == f"Registered service: {name}\n"
    shown(both, name)


def shown(both, name, holds=bool):
    """Consul's agent tells its catalog a moment later."""
    for cli in (both.ours, both.theirs):
        eventually(lambda cli=cli: holds(cli.server.get(f"/v1/health/service/{name}").json), name)


def test_a_service_from_a_file_is_in_the_catalog(both, name, tmp_path):
    registered(both, name, tmp_path / "service.json")
    assert re.search(rf"^{name} +b,version=1$", both.tell("catalog", "services", "-tags"), re.MULTILINE)
    assert both.tell("catalog", "services", f"-node={NODE}") == f"consul\n{name}\n"
    both.tell("catalog", "nodes", f"-service={name}")
    for field in ("ServiceWeights", "ServiceMeta", "ServiceTags", "ServiceAddress", "ServicePort"):
        ours, theirs = (
            cli.server.get(f"/v1/catalog/service/{name}").json for cli in (both.ours, both.theirs)
        )
        assert ours[0][field] == theirs[0][field]
    assert both.tell("services", "deregister", str(tmp_path / "service.json"))
    shown(both, name, lambda found: not found)
    assert both.tell("catalog", "services") == "consul\n"


def test_a_service_is_registered_by_options_and_taken_out_by_its_id(both, name):
    both.tell(
        "services", "register", f"-name={name}", f"-id={name}-7", "-port=7", "-tag=x", "-tag=y", "-meta=a=b"
    )
    shown(both, name)
    assert both.tell("services", "deregister", f"-id={name}-7") == f"Deregistered service: {name}-7\n"
    shown(both, name, lambda found: not found)


def test_nodes_and_datacenters(both):
    assert both.tell("catalog", "datacenters") == "dc1\n"
    table = both.tell("catalog", "nodes").splitlines()
    assert next(line.split() for line in table) == ["Node", "ID", "Address", "DC"]
    assert [line.split()[0::2] for line in table][1] == [NODE, "127.0.0.1"]
    both.same("catalog", "nodes", "-service=none-such")
    both.same("catalog", "nodes", "-near=_agent")
    both.same("catalog", "nodes", "-node-meta=a=b")
    both.same("catalog", "services", "-node=none-such")
    both.same("catalog", "nodes", "-filter=Node == n2")
    both.same("catalog", "nodes", f"-filter=Node == {NODE}")


def test_maintenance_of_a_service(both, name, tmp_path):
    registered(both, name, tmp_path / "service.json")
    both.tell("maint", "-enable", f"-service={name}-1", "-reason=new disk")
    said = both.tell("maint")
    assert f"  ID:     {name}-1\n  Reason: new disk\n" in said
    shown(both, name, lambda found: any(check["Status"] == "critical" for check in found[0]["Checks"]))
    both.tell("maint", "-disable", f"-service={name}-1")
    assert both.tell("maint") == ""
    both.tell("services", "deregister", f"-id={name}-1")
    shown(both, name, lambda found: not found)


def test_maintenance_of_the_node(both):
    both.tell("maint", "-enable")
    said = both.tell("maint")
    assert f"Name:   {NODE}\n" in said
    assert "no reason was provided" in said
    both.tell("maint", "-disable")
    assert both.tell("maint") == ""
    both.same("maint", "-enable", "-service=none-such")
    both.same("maint", "-reason=only")


def test_members_and_what_the_agent_says_of_itself(both):
    ours, theirs = both.pair("members")
    assert ours.status == theirs.status == 0
    heads = [[line.split() for line in each.out.splitlines()] for each in (ours, theirs)]
    assert heads[0][0] == heads[1][0]
    cells = [dict(zip(head[0], head[1], strict=False)) for head in heads]
    for field in ("Node", "Status", "Type", "Build", "Protocol", "DC"):
        assert cells[0][field] == cells[1][field], field
    for cli in (both.ours, both.theirs):
        info = cli.ok("info")
        assert re.search(r"^agent:$", info, re.MULTILINE)
        assert re.search(r"^\tleader = true$", info, re.MULTILINE)
        assert re.search(r"^\tserver = true$", info, re.MULTILINE)
        assert NODE in cli.ok("operator", "raft", "list-peers")


def test_an_event_is_fired_and_its_watcher_hears_it(both, name):
    assert both.tell("event", f"-name={name}", "first").startswith("Event ID: ")
    for cli in (both.ours, both.theirs):
        (heard,) = eventually(
            lambda cli=cli: json.loads(cli.ok("watch", "-type=event", f"-name={name}")), name
        )
        assert (heard["Name"], heard["Payload"]) == (name, "Zmlyc3Q=")
    both.same("event", "first")
    both.same("event", f"-name={name}", "-tag=a")
    both.same("event", f"-name={name}", "x" * 600)


@pytest.mark.parametrize(
    "arguments",
    [
        ("services", "register"),
        ("services", "register", "/nowhere"),
        ("services", "register", "-name=a", "-port=nonsense"),
        ("services", "deregister"),
        ("services", "deregister", "-id=none-such"),
        ("catalog", "services", "-datacenter=other"),
        ("members", "-status=none"),
        ("force-leave", "none-such"),
        ("operator", "raft", "remove-peer", "-id=none-such"),
        ("keyring", "-list"),
        ("rtt", "none-such"),
    ],
)
def test_what_is_refused_or_finds_nothing(both, arguments):
    both.same(*arguments)
