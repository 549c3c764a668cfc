"""The catalog's and the KV store's answers as nouns: whatever users wrote there, nothing raises."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.consul import catalog, keys, wire
from milkrun.consul.client import decode
from milkrun.errors import RegistryRefused
from milkrun.model import CommitId, CommitMark, Health, ServiceName, VersionName

GOAT = ServiceName("goat")


def check(status="passing", check_id="service:a", **fields):
    return wire.Check(check_id=check_id, status=status, **fields)


@pytest.mark.parametrize(
    ("checks", "health", "reason"),
    [
        ([], Health.PASSING, ""),
        ([check(), check("warning", output="slow")], Health.WARNING, "slow"),
        ([check("critical", output="503"), check("warning", output="slow")], Health.CRITICAL, "503"),
        ([check("critical", output="TTL expired (last said: well)")], Health.LOST, "TTL expired (last said: well)"),
        ([check("critical", output="TTL expired"), check("critical", output="503")], Health.CRITICAL, "503"),
        ([check("critical", "_node_maintenance", notes="disk"), check()], Health.MAINTENANCE, "disk"),
        ([check("critical", "_service_maintenance:a", notes="drain")], Health.MAINTENANCE, "drain"),
        ([check("nonsense")], Health.CRITICAL, ""),
    ],
)  # fmt: skip
def test_the_worst_check_speaks_for_the_instance(checks, health, reason):
    assert catalog.aggregate(checks) == (health, reason)


def entry(**service):
    return wire.HealthEntry(
        node=wire.Node(name="n", address="10.0.0.1"), service=wire.Service(id="a", service="goat", **service)
    )


@pytest.mark.parametrize(
    ("service", "version"),
    [
        ({"tags": ["x", "version=1.0"], "meta": {"version": "2.0"}}, "1.0"),
        ({"meta": {"version": "2.0"}}, "2.0"),
        ({"tags": None, "meta": None}, "unversioned"),
        ({"meta": {"version": ""}}, "unversioned"),
    ],
)
def test_the_version_is_the_tag_else_the_meta(service, version):
    (found,) = catalog.instances([entry(**service)])

    assert (found.version, found.address) == (version, "10.0.0.1")


pairs = st.builds(
    wire.Pair,
    key=st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            [
                keys.commit(GOAT),
                keys.maintenance(GOAT),
                keys.weight(GOAT, VersionName("1")),
                "goat/version=/replicas",
            ]
        ),
    ),
    value=st.one_of(
        st.none(),
        st.binary(max_size=30),
        st.sampled_from(
            [b"80", b"1e999", b"nan", b"-1", b"1e300", b"true", b'{"commit": 1}', b"\xff", b"[" * 5_000]
        ),
    ),
)


@given(st.lists(pairs, max_size=8))
def test_no_keys_and_values_make_a_wish_fail(found):
    wish = catalog.wish(GOAT, found)

    for weight in wish.weights.values():
        assert 0 <= weight < float("inf")


def test_a_wish_is_read():
    mark = CommitMark(commit=CommitId("c" * 40), generation=7)
    found = catalog.wish(
        GOAT,
        [
            wire.Pair(key="goat/version=0.0.1/weight", value=b"99.9"),
            wire.Pair(key="goat/version=0.0.1/replicas", value=b"2"),
            wire.Pair(key="goat/maintenance", value=b"true"),
            wire.Pair(key="goat/commit", value=msgspec.json.encode(mark)),
            wire.Pair(key="goat/somebody/elses", value=b"1"),
        ],
    )

    assert (found.weights, found.maintenance, found.mark) == ({"0.0.1": 99.9}, True, mark)
    assert found.versions[VersionName("0.0.1")].replicas == 2


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_an_answer_of_any_bytes_is_read_or_refused(body):
    for shape in (
        list[wire.HealthEntry],
        list[wire.Pair],
        wire.TxnAnswer,
        wire.Created,
        dict[str, list[str]],
        str,
    ):
        try:
            decode(body, shape)
        except RegistryRefused:
            continue


@pytest.mark.parametrize(
    "body",
    [b'[{"Key":"\xff"}]', b'[{"x":' + b"[" * 200_000, b'[{"Key":"a","Value":"!"}]', b"[{}]", b'{"ID":5}'],
)
def test_odd_answers_are_refused_by_name(body):
    with pytest.raises(RegistryRefused, match="not what Consul would say"):
        decode(body, list[wire.Pair])


def test_values_are_what_base64_stands_for():
    (pair, empty) = decode(b'[{"Key":"a","Value":"aGk="},{"Key":"b","Value":null}]', list[wire.Pair])

    assert (pair.data, empty.data) == (b"hi", b"")
