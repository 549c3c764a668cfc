"""`consul watch`: its handler runs with what is there at first, and again at every change of that."""

from __future__ import annotations

import base64
import json

import pytest
from conformance.registries import NODE

pytestmark = pytest.mark.needs("consul")

HANDLER = "cat"
"""Prints what it is given: the watch's JSON, one value a line."""


def text(entry):
    return base64.b64decode(entry["Value"]).decode()


def register(cli, name, *options):
    cli.ok("services", "register", f"-name={name}", *options)


def statuses(checks):
    return sorted(each["Status"] for each in checks)


def test_a_key(cli, name):
    going = cli.start("watch", "-type=key", f"-key={name}", HANDLER)
    for value in ("1", "two", "3\n"):
        cli.ok("kv", "put", name, value)
        going.json_where(lambda entry, value=value: entry and text(entry) == value)
    cli.ok("kv", "delete", name)
    going.json_where(lambda entry: entry is None)


def test_a_prefix(cli, name):
    going = cli.start("watch", "-type=keyprefix", f"-prefix={name}/", HANDLER)
    for count in range(1, 4):
        cli.ok("kv", "put", f"{name}/{count}", str(count))
        found = going.json_where(lambda entries, count=count: len(entries or ()) == count)
        assert [text(each) for each in found] == [str(each) for each in range(1, count + 1)]
    cli.ok("kv", "delete", "-recurse", f"{name}/")
    going.json_where(lambda entries: not entries)


def test_all_services(cli, name):
    going = cli.start("watch", "-type=services", HANDLER)
    going.json_where(lambda found: "consul" in found)
    register(cli, name, "-tag=a")
    going.json_where(lambda found: found.get(name) == ["a"])
    cli.ok("services", "deregister", f"-id={name}")
    going.json_where(lambda found: name not in found)


def test_the_instances_of_a_service_and_those_that_pass(cli, name):
    going = cli.start("watch", "-type=service", f"-service={name}", HANDLER)
    passing = cli.start("watch", "-type=service", f"-service={name}", "-passingonly=true", HANDLER)
    check = {"CheckID": name, "TTL": "600s", "Status": "passing"}
    cli.server.put("/v1/agent/service/register", {"Name": name, "Port": 80, "Tags": ["v1"], "Check": check})
    for each in (going, passing):
        (found,) = each.json_where(bool)
        assert (found["Node"]["Node"], found["Service"]["Port"], found["Service"]["Tags"]) == (
            NODE,
            80,
            ["v1"],
        )
    cli.server.put(f"/v1/agent/check/fail/{name}")
    going.json_where(lambda found: "critical" in statuses(found[0]["Checks"]))
    passing.json_where(lambda found: not found)
    cli.ok("services", "deregister", f"-id={name}")
    going.json_where(lambda found: not found)


def test_the_checks_of_a_service_and_those_of_a_state(cli, name):
    of_service = cli.start("watch", "-type=checks", f"-service={name}", HANDLER)
    of_state = cli.start("watch", "-type=checks", "-state=warning", HANDLER)
    check = {"CheckID": name, "TTL": "600s", "Status": "passing"}
    cli.server.put("/v1/agent/service/register", {"Name": name, "Check": check})
    of_service.json_where(lambda checks: statuses(checks) == ["passing"])
    cli.server.put(f"/v1/agent/check/warn/{name}", note="slow")
    (found,) = of_service.json_where(lambda checks: statuses(checks) == ["warning"])
    assert (found["Output"], found["ServiceID"]) == ("slow", name)
    of_state.json_where(lambda checks: name in [each["CheckID"] for each in checks])
    cli.ok("services", "deregister", f"-id={name}")
    of_state.json_where(lambda checks: name not in [each["CheckID"] for each in checks])


def test_nodes(cli, name):
    going = cli.start("watch", "-type=nodes", HANDLER)
    cli.server.put("/v1/catalog/register", {"Node": name, "Address": "10.0.0.9"})
    going.json_where(lambda nodes: name in [each["Node"] for each in nodes])
    cli.server.put("/v1/catalog/deregister", {"Node": name})
    going.json_where(lambda nodes: name not in [each["Node"] for each in nodes])


def test_events(cli, name):
    going = cli.start("watch", "-type=event", f"-name={name}", HANDLER)
    for payload in ("one", "two"):
        cli.ok("event", f"-name={name}", payload)
        wanted = base64.b64encode(payload.encode()).decode()
        going.json_where(lambda found, wanted=wanted: found and found[-1]["Payload"] == wanted)


@pytest.mark.parametrize("kind", ["services", "nodes", "checks"])
def test_without_a_handler_it_prints_once_and_ends(cli, kind):
    assert json.loads(cli.ok("watch", f"-type={kind}"))


def test_what_is_no_watch(both):
    both.same("watch")
    both.same("watch", "-type=nonsense")
    both.same("watch", "-type=key")
    both.same("watch", "-type=key", "-key=none-such")
