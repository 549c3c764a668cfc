from __future__ import annotations

import asyncio

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode, RoutingState, Server, slots
from milkrun.router.diff import Add, Change, Observed, Remove, SetShares, diff, leaving, settled
from milkrun.router.placement import Span, place
from milkrun.testing.plane import FakeDataPlane

V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")
VERSIONS = [VersionName(f"0.0.{number}") for number in range(1, 4)]


@st.composite
def states(draw, ports):
    """Any state that `desired` may ask for: a version with a share has somebody to serve."""
    versions = {}
    for version in draw(st.sets(st.sampled_from(VERSIONS))):
        servers = {}
        for name in draw(st.sets(st.sampled_from("abc"), min_size=1)):
            server = Server(
                id=InstanceId(f"{version}-{name}"),
                address="127.0.0.1",
                port=draw(st.sampled_from(ports)),
                weight=draw(st.sampled_from([1, 2])),
                mode=draw(st.sampled_from(Mode)),
            )
            servers[server.id] = server
        versions[version] = servers
    able = [v for v, servers in versions.items() if any(s.mode is Mode.SERVE for s in servers.values())]
    weights = {version: float(draw(st.integers(0, 3))) for version in able}
    shares = slots(weights)
    before = slots({version: float(draw(st.integers(0, 3))) for version in VERSIONS})
    return RoutingState(shares=shares, placement=place(place((), before), shares), versions=versions)


def healthy(observed):
    """Every version with a share has a server that takes requests."""
    return all(
        any(seen.server.mode is Mode.SERVE for seen in observed.versions.get(version, {}).values())
        for version in observed.shares
    )


@given(states(ports=[8101]), states(ports=[8101]), st.data())
@settings(max_examples=300)
def test_interrupted_anywhere_and_resumed_it_ends_the_same_and_never_breaks_on_the_way(start, wanted, data):
    interrupt(start, wanted, data, check=True)


@given(states(ports=[8101, 8102]), states(ports=[8101, 8102]), st.data())
def test_instances_that_change_their_address_get_there_too(start, wanted, data):
    interrupt(start, wanted, data, check=False)


def interrupt(start, wanted, data, *, check):
    async def story():
        plane = FakeDataPlane()
        await plane.start(start)
        busy = data.draw(st.sets(st.sampled_from([n for s in start.versions.values() for n in s] or ["-"])))
        plane.busy = dict.fromkeys(busy, 1)
        for _ in range(3):
            operations = diff(await plane.observe(), wanted)
            for operation in operations[: data.draw(st.integers(0, len(operations)))]:
                before = await plane.observe()
                if isinstance(operation, Remove):
                    seen = before.versions[operation.version][operation.instance]
                    assert seen.server.mode is Mode.DRAIN
                    assert seen.in_flight == 0
                await plane.apply([operation], wanted)
                assert not check or healthy(await plane.observe())
        plane.busy = {}
        for _ in range(6):
            await plane.apply(diff(await plane.observe(), wanted), wanted)
        observed = await plane.observe()
        assert diff(observed, wanted) == []
        assert settled(observed, wanted)
        assert not leaving(observed, wanted)
        assert (observed.shares, observed.placement) == (wanted.shares, wanted.placement)
        for version, servers in wanted.versions.items():
            for name, server in servers.items():
                seen = observed.versions[version][name].server
                assert (seen.address, seen.port, seen.mode) == (server.address, server.port, server.mode)

    asyncio.run(story())


def server(name, mode=Mode.SERVE, port=8101):
    return Server(id=InstanceId(name), address="127.0.0.1", port=port, mode=mode)


def state(shares, **servers):
    v = VERSIONS[0]
    return RoutingState(
        shares=shares, versions={v: {InstanceId(n): server(n, m) for n, m in servers.items()}}
    )


async def seen(wanted):
    plane = FakeDataPlane()
    await plane.start(wanted)
    return await plane.observe()


async def test_what_leaves_drains_first_and_is_removed_when_idle():
    v = VERSIONS[0]
    before = state({v: 10_000}, a=Mode.SERVE, b=Mode.SERVE)
    after = state({v: 10_000}, a=Mode.SERVE)

    assert diff(await seen(before), after) == [Change(v, server("b", Mode.DRAIN))]
    drained = state({v: 10_000}, a=Mode.SERVE, b=Mode.DRAIN)
    assert diff(await seen(drained), after) == [Remove(v, InstanceId("b"))]


async def test_the_order_is_free_add_share_drain():
    v1, v2 = VERSIONS[:2]
    before = RoutingState(
        shares={v1: 10_000}, versions={v1: {"a": server("a"), "old": server("old", Mode.DRAIN)}}
    )
    after = RoutingState(shares={v2: 10_000}, versions={v2: {"b": server("b")}})

    kinds = [type(operation) for operation in diff(await seen(before), after)]

    assert kinds == [Remove, Add, SetShares, Change]


async def test_who_should_drain_and_still_takes_what_others_cannot_serve_is_told_again():
    """All equals the wish but that its pool hands it requests: it is no less in the way of its end."""
    v = VERSIONS[0]
    wanted = state({v: 10_000}, a=Mode.SERVE, b=Mode.DRAIN)
    there = await seen(wanted)
    there.versions[v][InstanceId("b")] = msgspec.structs.replace(
        there.versions[v][InstanceId("b")], pooled=True
    )

    assert diff(there, wanted) == [Change(v, server("b", Mode.DRAIN))]


async def test_equal_needs_nothing():
    wanted = state({VERSIONS[0]: 10_000}, a=Mode.SERVE, b=Mode.DRAIN)

    assert diff(await seen(wanted), wanted) == []
    assert settled(await seen(wanted), wanted)


def test_the_same_shares_at_other_slots_are_set_anew():
    """Whose slot it is decides which version a user sees."""
    spans = (Span(0, 4_999, V1), Span(5_000, 9_999, V2))
    turned = (Span(0, 4_999, V2), Span(5_000, 9_999, V1))
    shares = {V1: 5_000, V2: 5_000}

    assert diff(Observed(shares=shares, placement=turned), RoutingState(shares=shares, placement=spans)) == [
        SetShares(shares, spans)
    ]
    assert diff(Observed(shares=shares, placement=spans), RoutingState(shares=shares, placement=spans)) == []
    assert diff(Observed(shares=shares), RoutingState(shares=shares, placement=spans)) == []
