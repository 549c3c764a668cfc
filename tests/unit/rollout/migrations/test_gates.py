from __future__ import annotations

from milkrun.model import ServiceName, VersionName, application_name
from milkrun.rollout.migrations.gates import Facts, closed

LEDGER, OLD, NEW = ServiceName("ledger"), VersionName("1.0"), VersionName("2.0")


def reasons(**more):
    facts = {"sessions": ["ledger/2.0/a"], "instances": {OLD: 0}} | more
    return closed(LEDGER, NEW, [OLD], Facts(**facts))


def test_with_nobody_left_it_is_open():
    assert reasons() == []
    assert reasons(sessions=["ledger/2.0/a", "ledger/1.0-beta/a", "goat/1.0/a", "psql"]) == []


def test_each_reason_closes_it():
    assert reasons(instances={OLD: 2}) == ["2 instances of 1.0 are in the catalog"]
    assert reasons(sessions=["ledger/2.0/a", "ledger/1.0/b"]) == [
        "1 sessions of 1.0 are in the database: ledger/1.0/b"
    ]
    assert reasons(wrong=["v.sql:1: 7"]) == ["verify finds something wrong: v.sql:1: 7"]


def test_where_nobody_says_who_he_is_it_stays_closed():
    assert "nobody can tell who is old" in reasons(sessions=["psql", ""])[0]


def test_a_name_is_no_longer_than_postgresql_keeps_it():
    assert application_name(LEDGER, OLD, "h" * 100) == "ledger/1.0/" + "h" * 52
    long = VersionName("1" * 70)
    assert closed(
        LEDGER,
        NEW,
        [long],
        Facts(sessions=["ledger/2.0/a", application_name(LEDGER, long, "x")], instances={}),
    )
