"""What every data plane must do: the fake and the real HAProxy pass the same suite."""

from __future__ import annotations

from milkrun.model import VersionName
from milkrun.router.desired import Mode, RoutingState
from milkrun.router.diff import diff, settled

A, B, C = VersionName("0.0.1"), VersionName("0.0.2"), VersionName("1.0+x")


def state(shares, **versions):
    names = {"a": A, "b": B, "c": C}
    return RoutingState(
        shares={names[name]: share for name, share in shares.items()},
        versions={
            names[name]: {server.id: server for server in servers} for name, servers in versions.items()
        },
    )


async def converge(plane, wanted, passes=8):
    for _ in range(passes):
        observed = await plane.observe()
        operations = diff(observed, wanted)
        if not operations:
            break
        await plane.apply(operations, wanted)
    return await plane.observe()


async def test_started_serves_what_was_wanted(plane, apps):
    wanted = state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server(Mode.DRAIN)])

    await plane.start(wanted)

    observed = await plane.observe()
    assert observed.shares == wanted.shares
    assert settled(observed, wanted)
    assert await plane.alive()


async def test_versions_instances_and_shares_change_without_a_reload(plane, apps):
    await plane.start(RoutingState())
    first = state({"a": 10_000}, a=[apps["a1"].server()])
    both = state(
        {"a": 8_000, "b": 2_000},
        a=[apps["a1"].server(), apps["a2"].server()],
        b=[apps["b1"].server()],
    )
    last = state({"b": 10_000}, b=[apps["b1"].server(), apps["b2"].server()])

    for wanted in (first, both, last):
        observed = await converge(plane, wanted)

        assert observed.shares == wanted.shares
        assert {
            version: {name: seen.server for name, seen in servers.items()}
            for version, servers in observed.versions.items()
        } == wanted.versions
    assert plane.reloads == 0


async def test_a_drained_server_stays_until_it_is_not_wanted_and_comes_back(plane, apps):
    await plane.start(state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()]))
    drained = state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server(Mode.DRAIN)])

    observed = await converge(plane, drained)

    assert observed.versions[A]["a2"].server.mode is Mode.DRAIN
    back = await converge(plane, state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()]))
    assert back.versions[A]["a2"].server.mode is Mode.SERVE


async def test_no_shares_means_that_nobody_serves(plane, apps):
    await plane.start(state({"a": 10_000}, a=[apps["a1"].server()]))

    observed = await converge(plane, state({}, a=[apps["a1"].server()]))

    assert observed.shares == {}


async def test_the_same_wish_again_changes_nothing(plane, apps):
    wanted = state({"a": 9_990, "b": 10}, a=[apps["a1"].server()], b=[apps["b1"].server()])
    await plane.start(RoutingState())
    await converge(plane, wanted)

    await plane.apply([], wanted)

    assert diff(await plane.observe(), wanted) == []


async def test_another_address_for_the_same_instance_is_taken_over(plane, apps):
    import msgspec

    await plane.start(state({"a": 10_000}, a=[apps["a1"].server(), apps["a2"].server()]))
    moved = msgspec.structs.replace(apps["a2"].server(), port=apps["b2"].port)

    observed = await converge(plane, state({"a": 10_000}, a=[apps["a1"].server(), moved]))

    assert observed.versions[A]["a2"].server == moved
