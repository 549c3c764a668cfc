"""`consul kv`: the same words and exit statuses on ours as on Consul."""

from __future__ import annotations

import base64
import json

import pytest

pytestmark = pytest.mark.needs("consul")

LOCK_FLAG = "3304740253564472344"


def test_a_value_is_put_read_and_deleted(both, name):
    assert both.tell("kv", "put", name, "five") == f"Success! Data written to: {name}\n"
    assert both.tell("kv", "get", name) == "five\n"
    assert both.tell("kv", "delete", name) == f"Success! Deleted key: {name}\n"
    gone = both.same("kv", "get", name)
    assert (gone.status, gone.err) == (1, f"Error! No key exists at: {name}\n")


def test_a_value_comes_from_stdin_and_from_a_file(both, name, tmp_path):
    both.tell("kv", "put", f"{name}/stdin", "-", stdin="one\ntwo\n")
    assert both.tell("kv", "get", f"{name}/stdin") == "one\ntwo\n\n"
    (tmp_path / "value").write_text("é\n")
    both.tell("kv", "put", f"{name}/file", f"@{tmp_path / 'value'}")
    assert both.tell("kv", "get", f"{name}/file") == "é\n\n"


def test_a_value_is_bytes(both, name):
    both.tell("kv", "put", "-base64", name, base64.b64encode(bytes(range(256))).decode())
    shown = both.tell("kv", "get", "-base64", name)
    assert base64.b64decode(shown) == bytes(range(256))


def test_an_empty_value_is_a_value(both, name):
    both.tell("kv", "put", name)
    assert both.tell("kv", "get", name) == "\n"


def test_all_of_an_entry_is_shown(both, name):
    both.tell("kv", "put", "-flags", LOCK_FLAG, name, "v")
    shown = both.tell("kv", "get", "-detailed", name)
    assert f"Flags            {LOCK_FLAG}\n" in shown
    assert "Session          -\n" in shown
    assert "LockIndex        0\n" in shown


def test_what_is_below_a_prefix_is_shown_whole_or_by_name(both, name):
    for key in ("a", "a/b", "a/c/d", "ab"):
        both.tell("kv", "put", f"{name}/{key}", key)
    assert both.tell("kv", "get", "-recurse", f"{name}/a") == "".join(
        f"{name}/{key}:{key}\n" for key in ("a", "a/b", "a/c/d", "ab")
    )
    assert both.tell("kv", "get", "-keys", f"{name}/") == "".join(
        f"{name}/{key}\n" for key in ("a", "a/", "ab")
    )
    both.tell("kv", "get", "-keys", "-separator=", f"{name}/a/")
    both.tell("kv", "get", "-keys", "-separator=c", name)
    both.tell("kv", "get", "-recurse", "-detailed", name)
    assert both.tell("kv", "get", "-recurse", f"{name}/nothing") == ""
    both.tell("kv", "delete", "-recurse", f"{name}/a/")
    assert both.tell("kv", "get", "-keys", "-separator=", name) == f"{name}/a\n{name}/ab\n"


def test_a_write_holds_only_at_the_index_that_was_seen(both, name):
    both.tell("kv", "put", name, "1")
    stale = both.same("kv", "put", "-cas", "-modify-index=1", name, "2")
    assert (stale.status, stale.err) == (1, f"Error! Did not write to {name}: CAS failed\n")
    for cli in (both.ours, both.theirs):
        index = str(cli.server.get(f"/v1/kv/{name}").json[0]["ModifyIndex"])
        cli.ok("kv", "put", "-cas", f"-modify-index={index}", name, "2")
        late = cli.run("kv", "delete", "-cas", f"-modify-index={index}", name)
        assert (late.status, late.err) == (1, f"Error! Did not delete key {name}: CAS failed\n")
    assert both.tell("kv", "get", name) == "2\n"
    both.same("kv", "put", "-cas", name, "3")
    both.same("kv", "delete", "-cas", name)


def test_a_tree_is_exported_and_imported_whole(both, name):
    for key, value in (("a", "1"), ("a/é", "ü"), ("b c", ""), ("%2f", "x" * 10_000)):
        both.tell("kv", "put", "-flags=7", f"{name}/{key}", value)
    exported = both.tell("kv", "export", name)
    assert len(json.loads(exported)) == 4
    both.tell("kv", "delete", "-recurse", name)
    assert both.tell("kv", "export", name) in ("[]\n", "[]")
    assert both.tell("kv", "import", "-", stdin=exported) == "".join(
        f"Imported: {each['key']}\n" for each in json.loads(exported)
    )
    assert both.tell("kv", "export", name) == exported


def test_a_key_is_locked_by_a_session(both, name):
    sessions = {cli.kind: cli.server.session() for cli in (both.ours, both.theirs)}
    for cli in (both.ours, both.theirs):
        session = sessions[cli.kind]
        cli.ok("kv", "put", "-acquire", f"-session={session}", name, "mine")
        assert f"Session          {session}\n" in cli.ok("kv", "get", "-detailed", name)
        other = cli.run("kv", "put", "-acquire", f"-session={cli.server.session()}", name, "yours")
        assert (other.status, other.err) == (1, "Error! Did not acquire lock\n")
        cli.ok("kv", "put", "-release", f"-session={session}", name, "free")
    both.tell("kv", "get", "-detailed", name)
    both.same("kv", "put", "-acquire", name, "no session")
    both.same("kv", "put", "-acquire", "-session=nonsense", name, "v")


@pytest.mark.parametrize(
    "arguments",
    [
        ("put",),
        ("get",),
        ("delete",),
        ("put", "", "v"),
        ("get", "/leading"),
        ("put", "/leading", "v"),
        ("get", "-keys", "-detailed", "none-such"),
        ("delete", "none-such"),
        ("delete", "-recurse", "none-such"),
        ("import", "not json"),
        ("export", "none-such"),
        ("put", "too-large", "-"),
        ("get", "-datacenter=other", "none-such"),
    ],
)
def test_what_is_refused_or_finds_nothing(both, arguments):
    both.same("kv", *arguments, stdin="x" * 524_289)
