from milkrun.agent.drain import blockers
from milkrun.consul.wire import HealthEntry, Node, Service
from milkrun.model import InstanceTraffic, RouterReport

GOAT = "goat-v1-meadow-8101"


def report(index=7, **instances):
    return RouterReport(
        router="r1", service="goat", host="meadow", listen="127.0.0.1:1", stats="127.0.0.1:2", commit=None,
        generation=1, applied_at=0.0, catalog_index=index,
        instances={GOAT: InstanceTraffic(**instances)} if instances else {},
    )  # fmt: skip


def router(name):
    meta = {"router": name} if name else None
    return HealthEntry(node=Node(name="n"), service=Service(id=f"lb-{name}", service="lb-goat", meta=meta))


def test_nobody_routes_so_there_is_nothing_to_wait_for():
    assert blockers(GOAT, 7, {}, []) == []


def test_a_router_that_does_not_list_it_or_lists_it_as_drained_sends_nothing():
    assert blockers(GOAT, 7, {"r1": report()}, [router("r1")]) == []
    assert blockers(GOAT, 7, {"r1": report(9, state="drained")}, [router("r1")]) == []


def test_requests_in_flight_are_waited_for():
    left = blockers(GOAT, 7, {"r1": report(state="draining", in_flight=3)}, [])
    assert left == ["router r1 says draining, 3 in flight"]


def test_a_router_that_has_not_seen_the_maintenance_may_list_nothing_and_still_route():
    assert blockers(GOAT, 7, {"r1": report(6)}, []) == ["router r1 has not seen it yet (at 6, not 7)"]
    assert blockers(GOAT, 7, {"r1": report(6, state="drained")}, []) != []


def test_every_router_counts():
    assert len(blockers(GOAT, 7, {"r1": report(), "r2": report(1), "r3": None}, [])) == 2


def test_a_dead_routers_data_plane_may_still_route():
    left = blockers(GOAT, 7, {"r1": report()}, [router("r1"), router("r2"), router("")])
    assert left == ["router r2 does not report; its data plane may still route"]
