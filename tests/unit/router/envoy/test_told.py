"""What Envoy is told, step by step: as if each operation had been a command, and never what would leave nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode, RoutingState, Server, slots
from milkrun.router.diff import Observed, Seen, SetShares, diff
from milkrun.router.envoy.told import after, steps

VERSIONS = (VersionName("1"), VersionName("2"), VersionName("3"))

servers = st.builds(
    Server,
    id=st.sampled_from([InstanceId(name) for name in "abcdef"]),
    address=st.just("127.0.0.1"),
    port=st.integers(1, 3),
    weight=st.integers(1, 2),
    mode=st.sampled_from(Mode),
)


@st.composite
def states(draw) -> RoutingState:
    found = {version: draw(st.lists(servers, max_size=3)) for version in VERSIONS}
    versions = {version: {server.id: server for server in each} for version, each in found.items() if each}
    able = [
        version for version, each in versions.items() if any(one.mode is Mode.SERVE for one in each.values())
    ]
    weights = {version: draw(st.integers(0, 3)) for version in able}
    return RoutingState(shares=slots(weights), versions=versions)


def seen(told: RoutingState, in_flight: frozenset[str] = frozenset()) -> Observed:
    return Observed(
        shares=told.shares,
        versions={
            version: {
                name: Seen(server=server, in_flight=int(name in in_flight)) for name, server in each.items()
            }
            for version, each in told.versions.items()
        },
    )


def serving(told: RoutingState, version: VersionName) -> bool:
    return any(server.mode is Mode.SERVE for server in told.versions.get(version, {}).values())


@given(states(), states(), st.frozensets(st.sampled_from("abcdef")))
def test_after_each_step_a_version_with_a_share_has_a_server(before, wanted, busy):
    told = before
    for step in steps(diff(seen(before, busy), wanted)):
        assert len(step) == 1 or not any(isinstance(each, SetShares) for each in step)
        told = after(told, step)
        moves = {
            version
            for version in before.versions
            for name, server in before.versions[version].items()
            if (target := wanted.versions.get(version, {}).get(name)) and target.port != server.port
        }
        assert all(serving(told, version) or version in moves for version in told.shares)


@given(states(), states())
def test_the_steps_lead_to_what_is_wanted(before, wanted):
    told = before
    for _ in range(6):
        for step in steps(diff(seen(told), wanted)):
            told = after(told, step)
    assert diff(seen(told), wanted) == []
    assert told.shares == wanted.shares
    assert {version: each.keys() for version, each in told.versions.items()} == {
        version: each.keys() for version, each in wanted.versions.items()
    }
