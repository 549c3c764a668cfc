"""What other Envoys report is counted once, and an instance that drains is idle only when they surely have nothing."""

from __future__ import annotations

import pytest
from envoy.config.endpoint.v3.load_report_pb2 import ClusterStats
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.envoy.load_desk import report
from milkrun.router.envoy.loads import Load, Loads, Reporter
from milkrun.router.plane import InstanceCounted

GOAT, V1 = ServiceName("goat"), VersionName("1")
A, B = ("10.0.0.1", 80), ("10.0.0.2", 80)
IDLE = {A: Load()}


def serving(*drained: str) -> dict[ServiceName, RoutingState]:
    """Goats a and b of version 1, of whom these drain."""
    servers = {
        InstanceId(name): Server(
            id=InstanceId(name), address=host, port=port, mode=Mode.DRAIN if name in drained else Mode.SERVE
        )
        for name, (host, port) in (("a", A), ("b", B))
    }
    return {GOAT: RoutingState(shares={V1: 10_000}, versions={V1: servers})}


def stats(cluster: str = "goat/1", **fields: int) -> ClusterStats:
    socket = {"socket_address": {"address": A[0], "port_value": A[1]}}
    return ClusterStats(
        cluster_name=cluster,
        upstream_locality_stats=[{"upstream_endpoint_stats": [{"address": socket, **fields}]}],
    )


@pytest.fixture
def loads() -> Loads:
    found = Loads()
    found.told(serving(), 1)
    return found


def test_reports_add_up_for_the_version_and_for_the_instance(loads):
    for _ in range(2):
        said = report([stats(total_successful_requests=3, total_error_requests=2, total_issued_requests=7)])
        loads.hear(Reporter("goat"), said, 1)

    [found] = loads.counted(GOAT, serving()[GOAT], {V1})

    assert (found.version, found.figures.requests, found.figures.failures) == (V1, 10, 4)
    assert found.instances == {"a": InstanceCounted(tried=14, requests=10, failures=4)}


def test_what_nobody_was_told_is_not_counted(loads):
    many = stats("goat/1/copies", total_successful_requests=1), stats("pig/1", total_successful_requests=1)
    loads.hear(Reporter("goat"), report(many), 1)
    loads.hear(Reporter("goat"), {"goat/1": {("10.9.9.9", 1): Load(requests=1, issued=1)}}, 1)

    [found] = loads.counted(GOAT, serving()[GOAT], {V1})

    assert (found.figures.requests, found.instances) == (0, {})
    loads.told({}, 2)
    assert list(loads.counted(GOAT, RoutingState(), set())) == []


def test_an_instance_that_drains_is_idle_by_a_report_that_began_after_the_drain_was_followed(loads):
    reporter = Reporter("goat")
    loads.reporters.add(reporter)
    for _ in range(3):
        loads.hear(reporter, {"goat/1": IDLE}, 1)
    assert loads.in_flight(GOAT)[A] == 0

    loads.told(serving("a"), 2)
    assert loads.in_flight(GOAT)[A] == 1
    loads.hear(reporter, {"goat/1": IDLE}, 1)
    assert loads.in_flight(GOAT)[A] == 1, "it had not followed"
    loads.hear(reporter, {"goat/1": IDLE}, 2)
    assert loads.in_flight(GOAT)[A] == 1, "it followed somewhen in what it reports of"
    loads.told(serving("a", "b"), 3)
    loads.hear(reporter, {"goat/1": {A: Load(in_progress=2)}}, 2)
    assert (loads.in_flight(GOAT)[A], loads.in_flight(GOAT)[B]) == (2, 1), (
        "another drain is waited for by itself"
    )
    loads.hear(reporter, {}, 3)
    assert (loads.in_flight(GOAT)[A], loads.in_flight(GOAT)[B]) == (0, 1)

    loads.reporters.clear()
    assert not loads.in_flight(GOAT)[B], "who is gone is not waited for"


def test_loads_that_name_no_endpoint_are_refused():
    with pytest.raises(InputRefused, match="of each endpoint"):
        report([ClusterStats(upstream_locality_stats=[{"total_issued_requests": 1}])])


counts = st.integers(0, 2**64 - 1)
addresses = st.one_of(st.text(max_size=20), st.ip_addresses().map(str))


@given(addresses, st.integers(0, 2**32 - 1), counts, counts)
def test_any_message_is_values_or_refused(address, port, well, failed):
    message = stats(total_successful_requests=well, total_error_requests=failed)
    socket = message.upstream_locality_stats[0].upstream_endpoint_stats[0].address.socket_address
    socket.address, socket.port_value = address, port
    try:
        [places] = report([message]).values()
    except InputRefused as refused:
        assert "is no address" in str(refused)  # noqa: PT017
    else:
        assert [load.requests for load in places.values()] == ([well + failed] if address else [])
