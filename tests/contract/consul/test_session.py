from __future__ import annotations

import re

import pytest


def entry(server, key):
    return server.get(f"/v1/kv/{key}").json[0]


def test_a_session_shows_its_defaults(server, same):
    created = server.put("/v1/session/create")
    session = created.json["ID"]
    answer = server.get(f"/v1/session/info/{session}")
    same(
        answer.json,
        [
            {
                "ID": session,
                "Name": "",
                "Node": "n1",
                "LockDelay": 15_000_000_000,
                "Behavior": "release",
                "TTL": "",
                "NodeChecks": ["serfHealth"],
                "ServiceChecks": None,
            }
        ],
    )
    assert answer.index >= answer.json[0]["CreateIndex"]
    server.put(f"/v1/session/destroy/{session}")


def test_field_names_count_without_case(server, same):
    created = server.put("/v1/session/create", {"name": "x", "ttl": "15.0s", "lockdelay": "0.001s"})
    same(
        server.get(f"/v1/session/info/{created.json['ID']}").json,
        [{"Name": "x", "TTL": "15.0s", "LockDelay": 1_000_000}],
    )


def test_a_lock_delay_as_a_small_number_is_in_seconds(server, same):
    created = server.put("/v1/session/create", {"LockDelay": 5})
    same(server.get(f"/v1/session/info/{created.json['ID']}").json, [{"LockDelay": 5_000_000_000}])


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"TTL": "5s"}, 500, "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]"),
        ({"TTL": "25h"}, 500, "Invalid Session TTL '90000000000000', must be between [10s=24h0m0s]"),
        ({"TTL": "abc"}, 500, "Session TTL 'abc' invalid: time: invalid duration \"abc\""),
        ({"Behavior": "x"}, 500, "Invalid Behavior setting 'x'"),
        ({"Checks": ["nope"]}, 500, "Missing check 'nope' registration"),
        ({"Node": "nope"}, 500, "Missing node registration"),
    ],
)
def test_what_is_refused_and_with_which_words(server, body, status, text):
    answer = server.put("/v1/session/create", body)
    assert (answer.status, answer.text.strip()) == (status, text)


def test_a_body_that_is_no_json(server):
    answer = server.put("/v1/session/create", "garbage")
    assert answer.status == 400
    assert answer.text.startswith("Request decode failed: ")


NOBODY = "11111111-1111-1111-1111-111111111111"
SHORT = "failed session lookup: index error: UUID must be 36 characters"


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("PUT", f"/v1/session/renew/{NOBODY}", 404, f"Session id '{NOBODY}' not found"),
        ("PUT", "/v1/session/renew/nope", 500, SHORT),
        ("PUT", f"/v1/session/destroy/{NOBODY}", 200, "true"),
        ("PUT", "/v1/session/destroy/nope", 500, SHORT),
        ("GET", f"/v1/session/info/{NOBODY}", 200, "[]"),
        ("GET", "/v1/session/info/nope", 500, SHORT),
        ("GET", "/v1/session/info/", 400, "Missing session"),
        ("GET", "/v1/session/node/nope", 200, "[]"),
    ],
)
def test_sessions_that_are_not_there(server, method, path, status, text):
    answer = server.ask(method, path)
    assert (answer.status, answer.text.strip()) == (status, text)


def test_a_session_is_listed_renewed_and_destroyed(server):
    session = server.session(TTL="15s")
    assert session in {each["ID"] for each in server.get("/v1/session/list").json}
    assert session in {each["ID"] for each in server.get("/v1/session/node/n1").json}
    renewed = server.put(f"/v1/session/renew/{session}")
    assert (renewed.status, renewed.json[0]["ID"], renewed.json[0]["TTL"]) == (200, session, "15s")
    assert server.put(f"/v1/session/destroy/{session}").text.strip() == "true"
    assert server.put(f"/v1/session/renew/{session}").status == 404


def test_a_lock_is_taken_kept_and_left(server):
    key, mine, other = server.unique("lock"), server.session(), server.session()
    assert server.put(f"/v1/kv/{key}", b"1", acquire=mine).text.strip() == "true"
    held = entry(server, key)
    assert (held["Session"], held["LockIndex"]) == (mine, 1)
    assert server.put(f"/v1/kv/{key}", b"2", acquire=other).text.strip() == "false"
    assert server.put(f"/v1/kv/{key}", b"3", acquire=mine).text.strip() == "true"
    assert (entry(server, key)["LockIndex"], entry(server, key)["Value"]) == (1, "Mw==")
    assert server.put(f"/v1/kv/{key}", b"4", release=other).text.strip() == "false"
    assert server.put(f"/v1/kv/{key}", b"5", release=mine).text.strip() == "true"
    left = entry(server, key)
    assert "Session" not in left
    assert (left["LockIndex"], left["Value"]) == (1, "NQ==")
    assert server.put(f"/v1/kv/{key}", b"6", release=mine).text.strip() == "false"
    assert server.put(f"/v1/kv/{key}", b"7", acquire=other).text.strip() == "true"
    assert entry(server, key)["LockIndex"] == 2


def test_a_plain_write_leaves_the_lock_with_its_holder(server):
    key, mine = server.unique("lock"), server.session()
    server.put(f"/v1/kv/{key}", b"1", acquire=mine)
    assert server.put(f"/v1/kv/{key}", b"2").text.strip() == "true"
    assert entry(server, key)["Session"] == mine
    assert entry(server, key)["LockIndex"] == 0


def test_a_session_that_ends_releases_what_it_held(server):
    key, mine = server.unique("lock"), server.session(Behavior="release")
    server.put(f"/v1/kv/{key}", b"1", acquire=mine)
    before = entry(server, key)
    server.put(f"/v1/session/destroy/{mine}")
    after = entry(server, key)
    assert "Session" not in after
    assert (after["Value"], after["LockIndex"]) == (before["Value"], 1)
    assert after["ModifyIndex"] > before["ModifyIndex"]


def test_a_session_that_ends_deletes_what_it_held(server):
    key, mine = server.unique("lock"), server.session(Behavior="delete")
    server.put(f"/v1/kv/{key}", b"1", acquire=mine)
    index = server.get(f"/v1/kv/{key}").index
    server.put(f"/v1/session/destroy/{mine}")
    gone = server.get(f"/v1/kv/{key}")
    assert gone.status == 404
    assert gone.index > index


def test_after_a_lost_holder_the_lock_is_delayed(server):
    key = server.unique("lock")
    mine, other = server.session(LockDelay="1s"), server.session()
    server.put(f"/v1/kv/{key}", b"1", acquire=mine)
    server.put(f"/v1/session/destroy/{mine}")
    assert server.put(f"/v1/kv/{key}", b"2", acquire=other).text.strip() == "false"
    in_txn = server.put("/v1/txn", [{"KV": {"Verb": "lock", "Key": key, "Value": "", "Session": other}}])
    assert in_txn.status == 409
    assert re.search("lock.delay", in_txn.json["Errors"][0]["What"])
    assert server.put(f"/v1/kv/{key}", b"3").text.strip() == "true"

    for _ in range(100):
        if server.put(f"/v1/kv/{key}", b"4", acquire=other).text.strip() == "true":
            break
        # The delay passes while a query that nobody wakes waits for 100 ms.
        server.get(f"/v1/kv/{key}-nothing", index="99999999", wait="100ms")
    assert entry(server, key)["Session"] == other


def test_a_session_ends_with_the_check_it_depends_on(server):
    service = server.unique("svc")
    server.put("/v1/agent/service/register", {"Name": service, "Check": {"TTL": "60s", "Status": "passing"}})
    check = f"service:{service}"
    server.wait_until("passing", f"/v1/health/checks/{service}", lambda it: it.json)
    mine = server.session(Checks=["serfHealth", check])
    key = server.unique("lock")
    assert server.put(f"/v1/kv/{key}", b"1", acquire=mine).text.strip() == "true"
    server.put(f"/v1/agent/check/fail/{check}")
    server.wait_until("released", f"/v1/kv/{key}", lambda it: "Session" not in it.json[0])
    assert server.get(f"/v1/session/info/{mine}").json == []
    refused = server.put("/v1/session/create", {"Checks": [check]})
    assert (refused.status, refused.text.strip()) == (500, f"Check '{check}' is in critical state")
