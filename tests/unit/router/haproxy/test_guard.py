"""The guard before a reload: what is rendered passes, and whatever is missing of it does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.model import SHARE_SLOTS, InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server, slots
from milkrun.router.haproxy import guard, lanes, section
from milkrun.settings.service import TrafficSettings

GOAT, HEN = ServiceName("goat"), ServiceName("hen")


@st.composite
def states(draw) -> RoutingState:
    """Up to four versions with up to four servers each; those that serve have shares."""
    versions: dict[VersionName, dict[InstanceId, Server]] = {}
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True)):
        modes = draw(st.lists(st.sampled_from(Mode), max_size=4))
        servers = [
            Server(id=InstanceId(f"{name}-{number}"), address="10.0.0.1", port=8000 + number, mode=mode)
            for number, mode in enumerate(modes)
        ]
        versions[VersionName(name)] = {server.id: server for server in servers}
    serving = sorted(
        name
        for name, servers in versions.items()
        if any(server.mode is Mode.SERVE for server in servers.values())
    )
    weights = {name: draw(st.integers(1, 100)) for name in serving}
    return RoutingState(shares=slots(weights), versions=versions)


traffics = st.builds(TrafficSettings, protocol=st.sampled_from(["http", "http2", "tcp"]))


def written(
    wanted: dict[ServiceName, RoutingState], traffic: TrafficSettings
) -> tuple[str, dict[ServiceName, str]]:
    """The backends' text and the maps, as the files have them."""
    lines: list[str] = []
    maps = {}
    for service, state in wanted.items():
        assigned = lanes.assign({}, {name for name, servers in state.versions.items() if servers})
        lines += section.render(service, section.Section(lanes=8, traffic=traffic), assigned, state)
        maps[service] = section.render_map(service, state, assigned)
    return "\n".join(lines) + "\n", maps


@given(states(), states(), traffics)
def test_what_is_written_from_a_wish_is_what_is_wanted(goat, hen, traffic):
    wanted = {GOAT: goat, HEN: hen}
    text, maps = written(wanted, traffic)

    assert guard.objections(text, maps, wanted, {}) == []


@given(states(), states(), traffics, st.data())
def test_a_server_that_is_missing_or_does_not_serve_is_noticed(goat, hen, traffic, data):
    wanted = {GOAT: goat, HEN: hen}
    text, maps = written(wanted, traffic)
    lane = re.compile(r"^backend (?:goat|hen)\.[a-h]\n(?:  .*\n)*?(  server (?!spill).*\n)", re.MULTILINE)
    found = list(lane.finditer(text))
    if not found:
        return
    line = data.draw(st.sampled_from(found)).span(1)
    old = text[slice(*line)]
    other = old.replace(" disabled", "") if " disabled" in old else old.replace("\n", " disabled\n")
    new = data.draw(st.sampled_from(["", other]))

    broken = text[: line[0]] + new + text[line[1] :]

    assert guard.objections(broken, maps, wanted, {})


@given(states(), st.data())
def test_a_map_that_lacks_slots_or_names_nobody_is_noticed(goat, data):
    wanted = {GOAT: goat}
    text, maps = written(wanted, TrafficSettings())
    lines = maps[GOAT].splitlines(keepends=True)
    if not lines:
        return
    number = data.draw(st.integers(0, len(lines) - 1))
    for new in ("", "no map\n", lines[number].replace("goat.", "hen."), lines[number].replace(":", ":1")):
        broken = "".join([*lines[:number], new, *lines[number + 1 :]])
        assert guard.objections(text, {GOAT: broken}, wanted, {}), new


def test_all_slots_of_nobody_are_not_all_slots():
    state = RoutingState(shares={VersionName("a"): SHARE_SLOTS}, versions={})

    assert guard.objections("backend goat.a\n", {GOAT: ""}, {GOAT: state}, {})


@pytest.mark.parametrize("kept", [True, False])
def test_who_serves_and_is_not_known_to_be_unwanted_may_not_lose_everybody(kept):
    running = {GOAT: frozenset({InstanceId("a-0")})}
    text = "backend goat.all\n  mode http\n" + ("  server a-9 10.0.0.1:80 check\n" if kept else "")

    found = guard.objections(text, {}, {}, running)

    assert found == ([] if kept else ["goat would have no server, and 1 serve it now"])


def test_a_server_that_only_drains_serves_nobody():
    text = "backend goat.all\n  server a-0 10.0.0.1:80 check disabled\n"

    assert guard.objections(text, {}, {}, {GOAT: frozenset({InstanceId("a-0")})})
