"""What comes from the registry or git reaches Envoy whole, in its own field, or not at all; what Envoy says is read or
refused.
"""

from __future__ import annotations

import json

import msgspec
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import DataPlaneError, InputRefused
from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.diff import diff
from milkrun.router.envoy import counting, readback
from milkrun.router.envoy.resources import Kind, snapshot
from milkrun.router.front import Front, Route
from milkrun.router.placement import place
from milkrun.settings.service import TrafficSettings

GOAT, V1, V2 = ServiceName("goat"), VersionName("1"), VersionName("2")
FRONT = Front(
    name="lb-goat",
    listen=("127.0.0.1", 8202),
    stats=("127.0.0.1", 8404),
    routes=(Route(service=GOAT),),
    services={GOAT: TrafficSettings()},
)
hostile = st.text(max_size=40) | st.sampled_from(
    [
        "a;b",
        "a\nb",
        "../x",
        "x/y",
        "goat/1",
        "%REQ(authority)%",
        "a" * 300,
        "",
        "\0",
        "é",
        "1.2.3.4 5",
        "[::1]",
    ]
)


@given(hostile, hostile, hostile, st.integers(-1, 70_000), st.integers(-1, 300))
def test_a_server_arrives_whole_or_is_refused(name, version, address, port, weight):
    server = Server(id=InstanceId(name), address=address, port=port, weight=weight)
    told = RoutingState(
        shares={VersionName(version): 10_000}, versions={VersionName(version): {server.id: server}}
    )
    try:
        found = snapshot("1", FRONT, {GOAT: told}).resources
    except InputRefused:
        return
    (assignment,) = map(ClusterLoadAssignment.FromString, found[Kind.ENDPOINTS].values())
    (cluster,) = map(Cluster.FromString, found[Kind.CLUSTERS].values())
    (endpoint,) = assignment.endpoints[0].lb_endpoints
    assert cluster.name == assignment.cluster_name == f"goat/{version}"
    assert endpoint.endpoint.hostname == name
    assert endpoint.endpoint.address.socket_address.address == address
    assert endpoint.endpoint.address.socket_address.port_value == port
    assert endpoint.load_balancing_weight.value == weight


@given(st.dictionaries(st.sampled_from([V1, V2]), st.integers(-5, 10_005)))
def test_shares_are_all_slots_or_refused(shares):
    try:
        found = snapshot("1", FRONT, {GOAT: RoutingState(shares=shares)}).resources[Kind.ROUTES]
    except InputRefused:
        assert sum(shares.values()) != 10_000 or min(shares.values()) < 1
        return
    (config,) = map(RouteConfiguration.FromString, found.values())
    for route in config.virtual_hosts[0].routes:
        clusters = route.route.weighted_clusters.clusters
        assert not clusters or {each.name: each.weight.value for each in clusters} == {
            f"goat/{version}": share for version, share in shares.items()
        }


def test_a_placement_of_other_shares_is_refused():
    placed = RoutingState(shares={V1: 10_000}, placement=place((), {V1: 5_000, V2: 5_000}))
    with pytest.raises(InputRefused):
        snapshot("1", FRONT, {GOAT: placed})


def test_the_same_state_makes_the_same_bytes():
    server = Server(id=InstanceId("g"), address="::1", port=80)
    told = RoutingState(shares={V1: 10_000}, versions={V1: {server.id: server}})
    first, second = (snapshot("1", FRONT, {GOAT: told}).resources for _ in range(2))
    assert first == second


# What Envoy says

A = Server(id=InstanceId("a"), address="::1", port=80, weight=3)
B = Server(id=InstanceId("b"), address="127.0.0.1", port=81, mode=Mode.DRAIN)
TOLD = RoutingState(
    shares={V1: 7_000, V2: 3_000},
    placement=place((), {V1: 7_000, V2: 3_000}),
    versions={V1: {A.id: A}, V2: {B.id: B}},
)


def host(server: Server, *, spare=False, active=0, address="") -> dict:
    return {
        "address": {"socket_address": {"address": address or server.address, "port_value": server.port}},
        "stats": [
            {"name": "rq_active", "value": str(active)},
            {"name": "rq_total", "value": "18446744073709551615"},
        ],
        "health_status": {"eds_health_status": "HEALTHY" if server.mode is Mode.SERVE else "DRAINING"},
        "weight": server.weight,
        "hostname": server.id,
        **({"priority": 1} if spare else {}),
    }


def clusters(*hosts_by_version) -> bytes:
    rows = [
        {"name": "ads"},
        *({"name": f"goat/{v}", "host_statuses": hosts} for v, hosts in hosts_by_version),
    ]
    return json.dumps({"cluster_statuses": rows}).encode()


def routes(*splits) -> bytes:
    each = [
        {
            "route": {
                "weighted_clusters": {
                    "clusters": [{"name": name, "weight": weight} for name, weight in split]
                }
            }
        }
        for split in splits
    ]
    return json.dumps({"configs": [{"route_config": {"virtual_hosts": [{"routes": each}]}}]}).encode()


SPLIT = [("goat/1", 7_000), ("goat/2", 3_000)]
THERE = clusters(
    (V1, [host(A, active=2), host(B, spare=True, active=1)]), (V2, [host(B), host(A, spare=True)])
)


def observed(there=THERE, split=None, told=TOLD):
    placed = readback.placement(routes(SPLIT, SPLIT, [("cow/1", 10_000)]) if split is None else split, GOAT)
    return readback.observed(told, readback.clusters(there, GOAT), placed)


def test_what_was_told_and_is_there_needs_nothing():
    found = observed()
    assert diff(found, TOLD) == []
    assert (found.versions[V1][A.id].in_flight, found.versions[V2][B.id].in_flight) == (2, 1)
    assert (found.versions[V1][A.id].pooled, found.versions[V2][B.id].pooled) == (True, False)


def test_an_address_in_another_spelling_is_the_same():
    there = clusters((V1, [host(A, address="0:0::0:1")]), (V2, [host(B)]))
    assert observed(there).versions[V1][A.id].server == A


def test_routes_that_disagree_are_no_split():
    assert observed(split=routes(SPLIT, [("goat/1", 10_000)])).shares == {}


def test_who_is_there_and_was_not_told_is_seen_and_drained():
    stranger = Server(id=InstanceId("x"), address="127.0.0.1", port=99)
    there = clusters((V1, [host(A), host(stranger)]), (V2, [host(B)]))
    operations = diff(observed(there), TOLD)
    assert [each.server.id for each in operations] == ["x"]


def test_who_was_told_and_is_not_there_is_missing():
    assert [type(each).__name__ for each in diff(observed(clusters((V2, [host(B)]))), TOLD)] == ["Add"]


def test_of_two_with_one_address_the_one_that_leaves_still_drains():
    after = msgspec.structs.replace(A, id=InstanceId("new"))
    leaving = msgspec.structs.replace(A, mode=Mode.DRAIN)
    told = msgspec.structs.replace(TOLD, versions={V1: {A.id: leaving, after.id: after}, V2: {B.id: B}})
    there = clusters((V1, [host(after, active=1)]), (V2, [host(B)]))
    seen = observed(there, told=told).versions[V1]
    assert (seen[A.id].server.mode, seen[after.id].server.mode) == (Mode.DRAIN, Mode.SERVE)


@given(st.integers(0, len(THERE) - 1), st.binary(max_size=3))
def test_a_reply_that_broke_off_or_was_spoilt_is_an_error_or_read(at, instead):
    for body in (THERE[:at], THERE[:at] + instead + THERE[at + 1 :]):
        try:
            readback.clusters(body, GOAT)
        except DataPlaneError:
            continue
    for read in (readback.placement, lambda body, goat: counting.counted(body, goat, [V1], 1, tcp=False)):
        body = routes(SPLIT)
        with pytest.raises(DataPlaneError):
            read(body[: at % len(body)], GOAT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: (
            st.lists(each)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "weighted_clusters",
                        "clusters",
                        "name",
                        "weight",
                        "stats",
                        "histograms",
                        "value",
                        "buckets",
                    ]
                ),
                each,
            )
        ),
    )
)
def test_any_json_is_read_or_refused(tree):
    body = json.dumps(tree).encode()
    for read in (
        readback.placement,
        readback.clusters,
        lambda body, goat: counting.counted(body, goat, [V1], 1, tcp=False),
    ):
        try:
            read(body, GOAT)
        except DataPlaneError:
            continue
