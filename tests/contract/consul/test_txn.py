from __future__ import annotations

import base64

import pytest


def op(verb, key, **fields):
    return {"KV": {"Verb": verb, "Key": key, **fields}}


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_all_is_done_under_one_index_and_deletes_show_nothing(server):
    base = server.unique("txn")
    answer = server.put(
        "/v1/txn",
        [
            op("set", f"{base}/a", Value=b64("1"), Flags=7),
            op("get", f"{base}/a"),
            op("cas", f"{base}/b", Value=b64("2"), Index=0),
            op("delete", f"{base}/c"),
            op("get-tree", f"{base}/"),
            op("check-not-exists", f"{base}/c"),
        ],
    )
    assert answer.status == 200, answer.text
    results = [each["KV"] for each in answer.json["Results"]]
    assert answer.json["Errors"] is None
    assert [(each["Key"], each["Value"]) for each in results] == [
        (f"{base}/a", None),
        (f"{base}/a", b64("1")),
        (f"{base}/b", None),
        (f"{base}/a", b64("1")),
        (f"{base}/b", b64("2")),
    ]
    assert len({each["ModifyIndex"] for each in results}) == 1
    assert results[0]["Flags"] == 7


def test_one_error_undoes_all(server):
    base = server.unique("txn")
    server.put(f"/v1/kv/{base}/kept", b"before")
    answer = server.put(
        "/v1/txn",
        [
            op("set", f"{base}/kept", Value=b64("after")),
            op("set", f"{base}/new", Value=b64("x")),
            op("delete", f"{base}/kept"),
            op("cas", f"{base}/new", Value=b64("y"), Index=1),
        ],
    )
    assert answer.status == 409
    assert answer.json["Results"] is None
    assert answer.json["Errors"] == [
        {"OpIndex": 3, "What": f'failed to set key "{base}/new", index is stale'},
    ]
    assert server.get(f"/v1/kv/{base}/", keys="").json == [f"{base}/kept"]
    assert server.get(f"/v1/kv/{base}/kept", raw="").body == b"before"


def test_each_verb_says_why_it_does_not_hold(server):
    base = server.unique("txn")
    a, nothing = f"{base}/a", f"{base}/nothing"
    server.put(f"/v1/kv/{a}", b"1")
    index = server.get(f"/v1/kv/{a}").json[0]["ModifyIndex"]
    wrong = index + 1
    cases = [
        (op("cas", a, Value="", Index=wrong), f'failed to set key "{a}", index is stale'),
        (op("get", nothing), f'key "{nothing}" doesn\'t exist'),
        (op("check-not-exists", a), f'key "{a}" exists'),
        (
            op("check-index", a, Index=wrong),
            f'failed index check for key "{a}", current modify index {index} != {wrong}',
        ),
        (op("check-index", nothing, Index=1), f'failed to check index, key "{nothing}" doesn\'t exist'),
        (op("lock", a, Session="x"), "failed session lookup: index error: UUID must be 36 characters"),
        (
            op("unlock", a, Session="x"),
            f'failed to unlock key "{a}", lock isn\'t held, or is held by another session',
        ),
        (
            op("check-session", a, Session="x"),
            f'failed session check for key "{a}", current session "" != "x"',
        ),
        (
            op("check-session", nothing, Session="x"),
            f'failed to check session, key "{nothing}" doesn\'t exist',
        ),
        (op("delete-cas", a, Index=wrong), f'failed to delete key "{a}", index is stale'),
        (op("bogus", a), 'unknown KV verb "bogus"'),
    ]
    answer = server.put("/v1/txn", [each for each, _ in cases])
    assert answer.status == 409
    assert answer.json["Errors"] == [{"OpIndex": at, "What": text} for at, (_, text) in enumerate(cases)]


def test_locks_within_a_transaction(server):
    key, mine, other = server.unique("txn"), server.session(), server.session()
    answer = server.put(
        "/v1/txn",
        [
            op("lock", key, Value=b64("1"), Session=mine),
            op("check-session", key, Session=mine),
            op("unlock", key, Value=b64("2"), Session=mine),
            op("lock", key, Value=b64("3"), Session=other),
        ],
    )
    assert answer.status == 200, answer.text
    results = [each["KV"] for each in answer.json["Results"]]
    assert [each.get("Session") for each in results] == [mine, mine, None, other]
    assert [each["LockIndex"] for each in results] == [1, 1, 1, 2]
    held = server.put("/v1/txn", [op("lock", key, Session=mine)])
    assert held.json["Errors"] == [
        {"OpIndex": 0, "What": f'failed to lock key "{key}", lock is already held'}
    ]


def test_delete_tree_sees_what_the_transaction_set(server):
    base = server.unique("txn")
    server.put(f"/v1/kv/{base}/old", b"1")
    answer = server.put(
        "/v1/txn",
        [
            op("set", f"{base}/new", Value=""),
            op("delete-tree", f"{base}/"),
            op("set", f"{base}/last", Value=""),
        ],
    )
    assert answer.status == 200, answer.text
    assert server.get(f"/v1/kv/{base}/", keys="").json == [f"{base}/last"]


@pytest.mark.parametrize(("count", "status"), [(64, 200), (65, 413)])
def test_64_operations_at_most(server, count, status):
    base = server.unique("txn")
    answer = server.put("/v1/txn", [op("set", f"{base}/{n}", Value="YQ==") for n in range(count)])
    assert answer.status == status
    if status == 413:
        assert answer.text.strip() == "Transaction contains too many operations (65 > 64)"
        assert server.get(f"/v1/kv/{base}/", keys="").status == 404


@pytest.mark.parametrize(
    ("body", "start"),
    [
        ("", "Failed to parse body: EOF"),
        ("x", "Failed to parse body: "),
        ("{}", "Failed to parse body: "),
        ('[{"KV":{"Verb":"set","Key":"a","Value":"!!"}}]', "Failed to parse body: illegal base64 data"),
    ],
)
def test_bodies_that_cannot_be_read(server, body, start):
    answer = server.put("/v1/txn", body)
    assert answer.status == 400
    assert answer.text.startswith(start)


def test_nothing_to_do(server):
    answer = server.put("/v1/txn", [])
    assert (answer.status, answer.json["Results"], answer.json["Errors"]) == (200, [], None)
    assert server.put("/v1/txn", [op("set", "", Value="YQ==")]).json["Errors"] == [
        {"OpIndex": 0, "What": "Must provide key"}
    ]
