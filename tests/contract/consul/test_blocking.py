from __future__ import annotations

import time


def service(server, **fields):
    name = server.unique("svc")
    server.put(
        "/v1/agent/service/register", {"Name": name, "Check": {"TTL": "60s", "Status": "passing"}, **fields}
    )
    server.wait_until(
        "registered", f"/v1/health/service/{name}", lambda it: it.json and len(it.json[0]["Checks"]) == 2
    )
    return name


def test_a_query_without_an_index_does_not_wait(server):
    key = server.unique("key")
    server.put(f"/v1/kv/{key}", b"1")
    assert server.get(f"/v1/kv/{key}", index="0", wait="20s").json[0]["Value"] == "MQ=="


def test_an_older_index_is_answered_at_once(server):
    key = server.unique("key")
    server.put(f"/v1/kv/{key}", b"1")
    index = server.get(f"/v1/kv/{key}").index
    assert server.get(f"/v1/kv/{key}", index=str(index - 1), wait="20s").index == index


def test_a_key_wakes_its_watcher(server):
    key = server.unique("key")
    server.put(f"/v1/kv/{key}", b"1")
    index = server.get(f"/v1/kv/{key}").index
    parked = server.parked(f"/v1/kv/{key}", index)
    assert parked.still_waits()
    server.put(f"/v1/kv/{key}", b"2")
    answer = parked.result()
    assert answer.json[0]["Value"] == "Mg=="
    assert answer.index == answer.json[0]["ModifyIndex"] > index


def test_a_key_that_comes_wakes_who_waits_for_it_and_one_that_goes_too(server):
    key = server.unique("key")
    parked = server.parked(f"/v1/kv/{key}", server.get(f"/v1/kv/{key}").index)
    server.put(f"/v1/kv/{key}", b"1")
    answer = parked.result()
    assert answer.status == 200
    parked = server.parked(f"/v1/kv/{key}", answer.index)
    assert parked.still_waits()
    server.delete(f"/v1/kv/{key}")
    gone = parked.result()
    assert gone.status == 404
    assert gone.index > answer.index


def test_a_prefix_wakes_its_watcher_for_a_new_key_and_a_deleted_one(server):
    base = server.unique("tree")
    server.put(f"/v1/kv/{base}/a", b"1")
    index = server.get(f"/v1/kv/{base}/", keys="").index
    for change, names in (
        (lambda: server.put(f"/v1/kv/{base}/b", b"1"), ["a", "b"]),
        (lambda: server.delete(f"/v1/kv/{base}/a"), ["b"]),
    ):
        parked = server.parked(f"/v1/kv/{base}/", index, keys="")
        assert parked.still_waits()
        change()
        answer = parked.result()
        assert answer.index > index
        assert answer.json == [f"{base}/{name}" for name in names]
        index = answer.index


def test_other_changes_do_not_wake_a_service(server):
    mine, other = service(server), service(server)
    index = server.get(f"/v1/health/service/{mine}").index
    parked = server.parked(f"/v1/health/service/{mine}", index)
    server.put(f"/v1/agent/check/fail/service:{other}")
    server.put(f"/v1/kv/{server.unique('key')}", b"1")
    server.wait_until("failed", f"/v1/health/checks/{other}", lambda it: it.json[0]["Status"] == "critical")
    assert parked.still_waits()
    server.put(f"/v1/agent/check/fail/service:{mine}")
    answer = parked.result()
    assert answer.index > index
    assert [each["Status"] for each in answer.json[0]["Checks"]] == ["passing", "critical"]


def test_a_service_that_comes_and_goes_wakes_its_watchers(server):
    name = server.unique("svc")
    parked = server.parked(f"/v1/health/service/{name}", server.get(f"/v1/health/service/{name}").index)
    server.put("/v1/agent/service/register", {"Name": name, "Port": 7})
    answer = parked.result()
    if not answer.json:  # Consul wakes the watchers of a service that is not there for any other one as well
        answer = server.wait_until("registered", f"/v1/health/service/{name}", lambda it: it.json)
    parked = server.parked(f"/v1/health/service/{name}", answer.index)
    assert parked.still_waits()
    server.put(f"/v1/agent/service/deregister/{name}")
    gone = parked.result()
    assert gone.json == []
    assert gone.index > answer.index


def test_maintenance_wakes(server):
    name = service(server)
    for enable, count in (("true", 3), ("false", 2)):
        parked = server.parked(f"/v1/health/service/{name}", server.get(f"/v1/health/service/{name}").index)
        assert parked.still_waits(0.1)
        server.put(f"/v1/agent/service/maintenance/{name}", enable=enable)
        assert len(parked.result().json[0]["Checks"]) == count


def test_a_check_wakes_those_who_watch_all_checks(server):
    name = service(server)
    parked = server.parked("/v1/health/state/any", server.get("/v1/health/state/any").index)
    server.put(f"/v1/agent/check/warn/service:{name}", note="hm")
    assert ("warning", "hm") in {
        (each["Status"], each["Output"]) for each in parked.result().json if each["ServiceName"] == name
    }


def test_nothing_new_is_answered_after_the_wait_with_the_same_index(server):
    key = server.unique("key")
    server.put(f"/v1/kv/{key}", b"1")
    index = server.get(f"/v1/kv/{key}").index
    began = time.monotonic()
    answer = server.get(f"/v1/kv/{key}", index=str(index), wait="200ms")
    assert time.monotonic() - began >= 0.2
    assert (answer.status, answer.index) == (200, index)


def test_an_index_ahead_waits_and_gets_the_lower_one(server):
    name = service(server)
    began = time.monotonic()
    answer = server.get(f"/v1/health/service/{name}", index="99999999", wait="200ms")
    assert time.monotonic() - began >= 0.2
    assert answer.index < 99999999
    assert len(answer.json) == 1


def test_a_session_that_ends_wakes_who_watches_it(server):
    session = server.session()
    parked = server.parked(f"/v1/session/info/{session}", server.get(f"/v1/session/info/{session}").index)
    server.put(f"/v1/session/destroy/{session}")
    assert parked.result().json == []
