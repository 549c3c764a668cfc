"""`consul lock`: one child at a time, whoever competes, and no lock without its session."""

from __future__ import annotations

import pytest
from conformance.registries import eventually

pytestmark = pytest.mark.needs("consul")

CHILD = "echo begins; cat >/dev/null; echo ends"
"""Says when it has the lock; gives it back when its stdin ends."""


def sessions(cli, prefix):
    found = cli.server.get("/v1/session/list").json
    return [each["ID"] for each in found if prefix in each["Name"]]


def contending(cli, prefix, count):
    eventually(lambda: len(sessions(cli, prefix)) == count, f"{count} sessions of {prefix}")


def holder(cli, prefix):
    return cli.server.get(f"/v1/kv/{prefix}/.lock").json[0]["Session"]


def lock(cli, name, *options, child=CHILD):
    return cli.start("lock", "-pass-stdin", *options, name, child)


def test_two_compete_and_one_child_runs_at_a_time(cli, name):
    first = lock(cli, name)
    assert first.line() == "begins"
    held = holder(cli, name)
    second = lock(cli, name)
    contending(cli, name, 2)
    assert holder(cli, name) == held
    assert second.silent
    assert first.finish() == 0
    assert first.line() == "ends"
    assert second.line() == "begins"
    assert holder(cli, name) in sessions(cli, name)
    assert holder(cli, name) != held
    assert second.finish() == 0
    assert second.line() == "ends"
    assert cli.server.get(f"/v1/kv/{name}", recurse="").status == 404
    assert sessions(cli, name) == []


def test_no_increment_is_lost_between_many_lockers(cli, name, tmp_path):
    # Their client looks again only after 5 s when the lock comes free between its refusal and its next look.
    count = tmp_path / "count"
    count.write_text("0")
    child = f"n=$(cat {count}); echo begins; echo $((n + 1)) > {count}"
    lockers = [lock(cli, name, child=child) for _ in range(5)]
    assert [each.wait() for each in lockers] == [0] * 5
    assert count.read_text() == "5\n"


def test_as_many_as_the_semaphore_says_run_at_once(cli, name):
    first, second = lock(cli, name, "-n=2"), lock(cli, name, "-n=2")
    assert (first.line(), second.line()) == ("begins", "begins")
    third = lock(cli, name, "-n=2")
    contending(cli, name, 3)
    assert third.silent
    assert first.finish() == 0
    assert third.line() == "begins"
    assert (second.finish(), third.finish()) == (0, 0)
    assert cli.server.get(f"/v1/kv/{name}", recurse="").status == 404


def test_who_loses_the_session_loses_the_lock_and_the_child(cli, name):
    child = "trap 'kill $!; echo told; exit 3' TERM; sleep 300 & echo begins; wait"
    going = cli.start("lock", name, child)
    assert going.line() == "begins"
    cli.server.put(f"/v1/session/destroy/{holder(cli, name)}")
    assert going.line() == "told"
    going.wait()
    left = cli.server.get(f"/v1/kv/{name}", recurse="")
    assert left.status == 404 or all("Session" not in entry for entry in left.json)
    assert sessions(cli, name) == []


def test_who_gives_up_in_time_leaves_nothing(cli, name):
    first = lock(cli, name)
    assert first.line() == "begins"
    late = cli.run("lock", "-try=1s", name, "echo never")
    assert late.status == 1
    assert "never" not in late.out
    assert first.finish() == 0
    assert cli.server.get(f"/v1/kv/{name}", recurse="").status == 404


def test_the_childs_exit_status_is_told(cli, name):
    assert cli.run("lock", "-child-exit-code", name, "exit 7").status == 2
    assert cli.run("lock", name, "exit 7").status == 0
