from __future__ import annotations

import json

import pytest


def entry(server, key):
    return server.get(f"/v1/kv/{key}").json[0]


def test_a_key_that_was_never_there_is_404_with_an_index(server):
    answer = server.get(f"/v1/kv/{server.unique('absent')}")
    assert (answer.status, answer.text) == (404, "")
    assert answer.index >= 1
    assert answer.headers["X-Consul-Knownleader"] == "true"
    assert answer.headers["X-Consul-Lastcontact"] == "0"


def test_a_value_comes_back_as_base64_with_its_indexes(server):
    key = server.unique("key")
    assert server.put(f"/v1/kv/{key}", b"hello").text.strip() == "true"
    answer = server.get(f"/v1/kv/{key}")
    found = answer.json[0]
    assert list(found) == ["LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"]
    assert (found["Key"], found["Value"], found["Flags"], found["LockIndex"]) == (key, "aGVsbG8=", 0, 0)
    assert found["CreateIndex"] == found["ModifyIndex"] == answer.index
    assert answer.headers["Content-Type"] == "application/json"


def test_an_empty_value_is_null(server):
    key = server.unique("empty")
    server.put(f"/v1/kv/{key}")
    assert entry(server, key)["Value"] is None
    assert server.get(f"/v1/kv/{key}", raw="").body == b""


def test_raw_gives_the_bytes_and_keeps_browsers_from_running_them(server):
    key = server.unique("raw")
    server.put(f"/v1/kv/{key}", bytes(range(256)))
    answer = server.get(f"/v1/kv/{key}", raw="")
    assert answer.body == bytes(range(256))
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.index >= 1


def test_the_same_value_again_changes_no_index(server):
    key = server.unique("same")
    server.put(f"/v1/kv/{key}", b"x")
    before = entry(server, key)
    server.put(f"/v1/kv/{key}", b"x")
    assert entry(server, key) == before
    server.put(f"/v1/kv/{key}", b"y")
    after = entry(server, key)
    assert after["CreateIndex"] == before["CreateIndex"]
    assert after["ModifyIndex"] > before["ModifyIndex"]


def test_flags_keep_all_64_bits(server):
    key = server.unique("flags")
    assert server.put(f"/v1/kv/{key}", b"x", flags=str(2**64 - 1)).text.strip() == "true"
    assert entry(server, key)["Flags"] == 2**64 - 1


def test_cas(server):
    key = server.unique("cas")
    assert server.put(f"/v1/kv/{key}", b"1", cas="0").text.strip() == "true"
    assert server.put(f"/v1/kv/{key}", b"2", cas="0").text.strip() == "false"
    index = entry(server, key)["ModifyIndex"]
    assert server.put(f"/v1/kv/{key}", b"3", cas=str(index + 1)).text.strip() == "false"
    assert server.put(f"/v1/kv/{key}", b"3", cas=str(index)).text.strip() == "true"
    assert entry(server, key)["Value"] == "Mw=="
    assert server.put(f"/v1/kv/{server.unique('nothing')}", b"3", cas="7").text.strip() == "false"


def test_delete_cas(server):
    key = server.unique("delete-cas")
    server.put(f"/v1/kv/{key}", b"1")
    index = entry(server, key)["ModifyIndex"]
    assert server.delete(f"/v1/kv/{key}", cas=str(index - 1)).text.strip() == "false"
    assert server.delete(f"/v1/kv/{key}", cas=str(index)).text.strip() == "true"
    assert server.get(f"/v1/kv/{key}").status == 404
    assert server.delete(f"/v1/kv/{key}", cas=str(index)).text.strip() == "true"


def test_delete_of_what_is_not_there_is_true(server):
    assert server.delete(f"/v1/kv/{server.unique('nothing')}").text.strip() == "true"


def test_recurse_is_a_plain_prefix_in_order(server):
    base = server.unique("tree")
    for name in ("b", "a/1", "ab", "a/2"):
        server.put(f"/v1/kv/{base}/{name}", name.encode())
    found = server.get(f"/v1/kv/{base}/a", recurse="").json
    assert [each["Key"] for each in found] == [f"{base}/a/1", f"{base}/a/2", f"{base}/ab"]
    absent = server.get(f"/v1/kv/{base}/zz", recurse="")
    assert absent.status == 404
    assert absent.index >= 1


def test_keys_with_and_without_separator(server):
    base = server.unique("names")
    for name in ("a", "b/c", "b/d", "e"):
        server.put(f"/v1/kv/{base}/{name}", b"1")
    assert server.get(f"/v1/kv/{base}/", keys="").json == [
        f"{base}/{name}" for name in ("a", "b/c", "b/d", "e")
    ]
    assert server.get(f"/v1/kv/{base}/", keys="", separator="/").json == [
        f"{base}/a",
        f"{base}/b/",
        f"{base}/e",
    ]
    assert server.get(f"/v1/kv/{base}", keys="", separator="/").json == [f"{base}/"]
    assert server.get(f"/v1/kv/{base}/zz", keys="").status == 404


def test_delete_recurse(server):
    base = server.unique("gone")
    for name in ("a", "b", "ba"):
        server.put(f"/v1/kv/{base}/{name}", b"1")
    assert server.delete(f"/v1/kv/{base}/b", recurse="").text.strip() == "true"
    assert server.get(f"/v1/kv/{base}/", keys="").json == [f"{base}/a"]


def test_names_with_odd_signs(server):
    base = server.unique("odd")
    server.put(f"/v1/kv/{base}/k%C3%A9y%20%2B%3F=x", b"1")
    assert server.get(f"/v1/kv/{base}/", keys="").json == [f"{base}/kéy +?=x"]


def test_a_path_is_cleaned_by_a_redirect(server):
    answer = server.get("/v1/kv/a//b")
    assert (answer.status, answer.headers["Location"]) == (301, "/v1/kv/a/b")
    answer = server.get("/v1/kv/../b")
    assert (answer.status, answer.headers["Location"]) == (301, "/v1/b")
    answer = server.get("/v1/kv/a/./b%20%C3%A9/", raw="")
    assert (answer.status, answer.headers["Location"]) == (301, "/v1/kv/a/b%20%C3%A9/?raw=")


@pytest.mark.parametrize("name", [".lock", "..x", "a/.b", "...", "a."])
def test_dots_in_names_are_only_dots(server, name):
    key = f"{server.unique('dots')}/{name}"
    assert server.put(f"/v1/kv/{key}", b"x").text.strip() == "true"
    assert entry(server, key)["Key"] == key


def test_a_value_over_512_kib_is_refused(server):
    key = server.unique("big")
    assert server.put(f"/v1/kv/{key}", b"x" * 524_288).text.strip() == "true"
    answer = server.put(f"/v1/kv/{key}", b"x" * 524_289)
    assert answer.status == 413
    assert answer.text.startswith("Request body(524289 bytes) too large, max size: 524288 bytes. See ")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("DELETE", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/a?cas=abc", 500, 'strconv.ParseUint: parsing "abc": invalid syntax'),
        ("PUT", "/v1/kv/a?flags=abc", 500, 'strconv.ParseUint: parsing "abc": invalid syntax'),
        ("DELETE", "/v1/kv/a?cas=x", 500, 'strconv.ParseUint: parsing "x": invalid syntax'),
        ("PUT", "/v1/kv/a?cas=1&acquire=nope", 400, "Conflicting flags: acquire=nope&cas=1"),
        ("PUT", "/v1/kv/a?acquire=x&release=y", 400, "Conflicting flags: acquire=x&release=y"),
        ("DELETE", "/v1/kv/a?recurse&cas=1", 400, "Conflicting flags: cas=1&recurse="),
        ("PUT", "/v1/kv/a?acquire=", 500, "missing session"),
        ("PUT", "/v1/kv/a?acquire=x", 500, "failed session lookup: index error: UUID must be 36 characters"),
        (
            "PUT",
            "/v1/kv/a?acquire=11111111-1111-1111-1111-111111111111",
            500,
            'invalid session "11111111-1111-1111-1111-111111111111"',
        ),
        ("GET", "/v1/kv/a?index=abc", 400, "Invalid index"),
        ("GET", "/v1/kv/a?index=-1", 400, "Invalid index"),
        ("GET", "/v1/kv/a?index=18446744073709551616", 400, "Invalid index"),
        ("GET", "/v1/kv/a?index=1&wait=abc", 400, "Invalid wait time"),
        ("GET", "/v1/kv/a?wait=10", 400, "Invalid wait time"),
        (
            "GET",
            "/v1/kv/a?stale&consistent",
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        ("GET", "/v1/kv/a?dc=nope", 500, "No path to datacenter"),
        ("POST", "/v1/kv/a", 405, "method POST not allowed"),
    ],
)
def test_what_is_refused_and_with_which_words(server, method, path, status, text):
    answer = server.ask(method, path)
    assert (answer.status, answer.text.strip()) == (status, text)
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_another_method_names_those_allowed(server):
    assert server.ask("POST", "/v1/kv/a").headers["Allow"] == "OPTIONS,GET,PUT,DELETE"
    options = server.ask("OPTIONS", "/v1/kv/a")
    assert (options.status, options.headers["Allow"]) == (200, "OPTIONS,GET,PUT,DELETE")


def test_pretty_is_indented(server):
    key = server.unique("pretty")
    server.put(f"/v1/kv/{key}", b"x")
    answer = server.get(f"/v1/kv/{key}", pretty="")
    assert answer.text.startswith("[\n    {\n        ")
    assert json.loads(answer.text)[0]["Key"] == key
