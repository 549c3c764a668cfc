"""Whatever comes in, only whole allowed forms come out, or a refusal (I7).

Hypothesis draws few and shrinks well; `crowd` makes many from one drawn seed. `MILKRUN_SOAK=1` tries twenty times
as many.
"""

from __future__ import annotations

import ipaddress
import os
import random
import re

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.errors import DataPlaneError, InputRefused
from milkrun.model import SHARE_SLOTS, InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server, slots
from milkrun.router.haproxy import commands, encode, lanes, section
from milkrun.router.placement import place
from milkrun.settings.service import TrafficSettings

TIMES = 20 if os.environ.get("MILKRUN_SOAK") == "1" else 1
CROWD = 250
GOAT = ServiceName("goat")

ID = r"[A-Za-z0-9._:-]{1,200}"
ADDRESS = r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\]):\d{1,5}"
WEIGHT = r"(?:[1-9]\d{0,2})"
CHECK = f"(?:{section.check(1)}|{section.check(1, pooled=True)})"
SERVER_LINE = re.compile(rf"  server {ID} {ADDRESS} {CHECK} weight {WEIGHT}(?: disabled)?", re.ASCII)
PLACE = rf"goat\.(?:[a-z]|all)/{ID}"
COMMAND = re.compile(
    rf"add server {PLACE} {ADDRESS} {CHECK} weight {WEIGHT}"
    rf"|enable health {PLACE}|set server {PLACE} state (?:ready|drain|maint)|del server {PLACE}",
    re.ASCII,
)
SHARP = " ;\n\r\t\0\\'\"#$%{}()[]<>@/:.,-_=|&*?é\u2028abgoX019"

sharp = st.text(alphabet=SHARP, max_size=24)
names = st.one_of(
    st.sampled_from(["goat-0.0.1-shed-8101", "a"]),
    sharp,
    st.sampled_from(hostile.NAMES),
    st.text(max_size=40),
)
addresses = st.one_of(
    st.ip_addresses().map(str), sharp, st.sampled_from(hostile.ADDRESSES), st.text(max_size=40)
)
ports = st.one_of(st.integers(1, 65_535), st.integers(), st.sampled_from(hostile.PORTS))
weights = st.one_of(st.integers(1, 256), st.integers(), st.sampled_from(hostile.WEIGHTS))


def server_of(name: str, address: str, port: int, weight: int, mode: Mode) -> Server:
    return Server(id=InstanceId(name), address=address, port=port, weight=weight, mode=mode)


servers = st.builds(server_of, names, addresses, ports, weights, st.sampled_from(Mode))


def many(examples: int) -> settings:
    return settings(max_examples=examples * TIMES, deadline=None)


def crowd(seed: int) -> list[Server]:
    """Servers whose words are good ones, hostile ones, or good ones that something was done to."""
    chance = random.Random(seed)

    def word(good: str, corpus: list[str]) -> str:
        text = chance.choice([good, good, good, chance.choice(corpus)])
        for _ in range(chance.choice([0, 0, 0, 1, 1, 3])):
            place = chance.randrange(len(text) + 1)
            command = ";" + chance.choice(hostile.COMMANDS)
            piece = chance.choice([chance.choice(SHARP), chr(chance.randrange(0x300)), command])
            text = text[:place] + piece + text[place + chance.randrange(3) :]
        return text

    def number(low: int, high: int, corpus: list[int]) -> int:
        return chance.choice([chance.randint(low, high), chance.randint(low, high), chance.choice(corpus)])

    return [
        server_of(
            word(f"goat-0.0.1-shed-{chance.randrange(900)}", hostile.NAMES),
            word(str(ipaddress.ip_address(chance.randrange(1, 2**32))), hostile.ADDRESSES),
            number(1, 65_535, hostile.PORTS),
            number(1, 256, hostile.WEIGHTS),
            chance.choice(list(Mode)),
        )
        for _ in range(CROWD)
    ]


def whole(server: Server) -> bool:
    """Checks what comes out for the server; False when it is refused."""
    try:
        name, address, weight = encode.server(server)
    except InputRefused:
        return False
    assert name == server.id
    assert re.fullmatch(ID, name, re.ASCII)
    assert re.fullmatch(ADDRESS, address, re.ASCII)
    host, _, port = address.rpartition(":")
    assert ipaddress.ip_address(host.strip("[]")) == ipaddress.ip_address(server.address)
    assert int(port) == server.port
    assert 1 <= int(port) <= 65_535
    assert 1 <= weight <= 256
    for command in [
        *commands._added("goat.a", server, section.server_options(TrafficSettings(), 1)),
        *commands._removed("goat.all", server.id),
    ]:
        assert COMMAND.fullmatch(command), command
    return True


ALL_LANES = section.Section(lanes=26)


def text(named: dict[VersionName, int], state: RoutingState) -> str:
    return "\n".join(section.render(GOAT, ALL_LANES, named, state))


TEMPLATE = set(text({}, RoutingState()).splitlines())


def rendered(found: list[Server]) -> list[str]:
    """The lines of a file with these servers, each of which must be the template's or one server's."""
    version = VersionName("v1")
    state = RoutingState(
        shares={version: SHARE_SLOTS}, versions={version: {server.id: server for server in found}}
    )
    lines = text({version: 0}, state).split("\n")
    for line in lines:
        assert line in TEMPLATE or SERVER_LINE.fullmatch(line) or not line, line
    return lines


@many(1_000)
@given(servers)
def test_a_server_its_commands_and_its_line_are_whole_or_refused(server):
    if whole(server):
        rendered([server])
    else:
        with pytest.raises(InputRefused):
            rendered([server])


@many(100)
@given(st.integers(0, 2**64))
def test_of_25_000_servers_those_that_are_not_refused_are_whole(seed):
    found = crowd(seed)
    fine = [server for server in found if whole(server)]
    assert 0 < len(fine) < CROWD
    with pytest.raises(InputRefused):
        rendered(found)
    modes = {server.id: server.mode for server in fine}
    count = sum(line.startswith("  server ") for line in rendered(fine))
    assert count == 26 + len(modes) + list(modes.values()).count(Mode.SERVE)


@many(300)
@given(
    st.dictionaries(
        names.map(VersionName), st.one_of(st.integers(-2, 10_001), st.floats(0, 1e6)), max_size=8
    ),
    st.booleans(),
)
def test_the_map_gives_every_slot_once_or_nothing_at_all(weighted, by_slots):
    """Version names never reach it: only lanes and numbers do."""
    shares = slots(weighted) if by_slots else {name: int(weight) for name, weight in weighted.items()}
    try:
        entries = encode.ranges(GOAT, place((), shares), lanes.assign({}, shares))
    except InputRefused:
        assert any(share < 1 for share in shares.values()) or sum(shares.values()) != SHARE_SLOTS
        return
    end = -1
    for span, lane in entries:
        assert re.fullmatch(r"\d{1,4}:\d{1,4}", span, re.ASCII)
        assert re.fullmatch(r"goat\.[a-z]", lane)
        first, last = map(int, span.split(":"))
        assert end + 1 == first <= last
        end = last
    assert end in (-1, SHARE_SLOTS - 1)


def test_the_corpus_of_names_is_refused_or_harmless():
    for text in hostile.NAMES:
        assert whole(server_of(text, "127.0.0.1", 80, 1, Mode.SERVE)) == bool(
            re.fullmatch(ID, text, re.ASCII)
        )


def test_the_corpus_of_addresses_ports_and_weights_is_refused():
    for text in hostile.ADDRESSES:
        assert not whole(server_of("a", text, 80, 1, Mode.SERVE)), text
    for port in hostile.PORTS:
        assert not whole(server_of("a", "127.0.0.1", port, 1, Mode.SERVE)), port
    for weight in hostile.WEIGHTS:
        assert not whole(server_of("a", "127.0.0.1", 80, weight, Mode.SERVE)), weight


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("127.0.0.1", "127.0.0.1:8202"),
        ("0.0.0.0", "0.0.0.0:8202"),
        ("::", "[::]:8202"),
        ("::1", "[::1]:8202"),
    ],
)
def test_a_bind_line_may_have_every_address_of_the_machine(host, written):
    assert encode.bind(host, 8202) == written


@pytest.mark.parametrize("text", [*hostile.ADDRESSES, "::1%;quit", "::1%x y"])
def test_a_bind_line_has_an_address_and_nothing_else(text):
    try:
        written = encode.bind(text, 8202)
    except InputRefused:
        return
    assert re.fullmatch(ADDRESS, written, re.ASCII)


def test_there_are_as_many_lanes_as_letters():
    assert [encode.lane(GOAT, number) for number in (0, 25)] == ["goat.a", "goat.z"]
    for number in (-1, 26):
        with pytest.raises(InputRefused):
            encode.lane(GOAT, number)
    with pytest.raises(InputRefused):
        encode.lane(ServiceName("goat;quit"), 0)


# Lanes


def test_a_version_keeps_its_lane_and_a_new_one_takes_the_lowest_free():
    v = [VersionName(f"v{number}") for number in range(4)]

    assert lanes.assign({v[0]: 0, v[1]: 1, v[2]: 2}, [v[3], v[2], v[0]]) == {v[0]: 0, v[3]: 1, v[2]: 2}


def test_too_many_versions_are_an_error_with_a_remedy():
    with pytest.raises(DataPlaneError, match="27 versions do not fit in 26 lanes") as caught:
        lanes.assign({}, [VersionName(f"v{number}") for number in range(27)])
    assert caught.value.remedy


@given(st.lists(st.sets(st.integers(0, 25).map(lambda n: VersionName(f"v{n}")))))
def test_no_lane_is_ever_had_by_two(history):
    taken = {}
    for needed in history:
        now = lanes.assign(taken, needed)
        assert set(now) == needed
        assert len(set(now.values())) == len(now)
        assert all(now[version] == taken[version] for version in needed & taken.keys())
        assert lanes.count(now, 8) > max(now.values(), default=0)
        taken = now
