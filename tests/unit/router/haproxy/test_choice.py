"""Whatever a service's settings say, only whole rules come out, or a refusal (I7)."""

from __future__ import annotations

import hostile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.model import SHARE_SLOTS, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.haproxy import choice
from milkrun.settings.service import TrafficSettings

GOAT = ServiceName("goat")
SHARP = " ;\n\r\t\0\\'\"#$%{}()[]<>@/:.,-_=|&*?éabgoX019"
texts = st.one_of(st.text(alphabet=SHARP, max_size=30), st.text(max_size=30), st.sampled_from(hostile.NAMES))
settings = st.builds(
    TrafficSettings,
    sticky=st.builds("{}{}".format, st.sampled_from(["", "cookie:", "header:", "address", "x:"]), texts),
    override=st.builds("{}{}".format, st.sampled_from(["", "header:", "cookie", "header:X-"]), texts),
    override_from=st.lists(st.one_of(st.just("10.0.0.0/8"), texts), max_size=2),
    mirror=texts,
    mirror_percent=st.one_of(st.floats(), st.floats(0.01, 100)),
)


@given(settings)
def test_hostile_words_are_refused_or_harmless(traffic):
    try:
        lines = [
            *choice.rules(GOAT, traffic),
            *choice.backends(GOAT, traffic),
            *choice.stripped(GOAT, traffic),
        ]
    except InputRefused:
        return
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert line.startswith(("  http-request ", "  http-response ", "  use_backend "))
        assert line.count("{") == line.count("}")
        assert line.count('"') in (0, 2, 4)
    kind, _, name = traffic.sticky.partition(":")
    said = [name] if kind in ("cookie", "header") else []
    said += [traffic.override.removeprefix("header:")] if traffic.override.startswith("header:") else []
    for text in said:
        assert not set(text) & set(" ;\n\r\t\0\\'\"#$%{}()[]") or not any(text in line for line in lines)


def state(**modes: Mode) -> RoutingState:
    servers = {
        VersionName(name): {name: Server(id=name, address="127.0.0.1", port=1, mode=mode)}
        for name, mode in modes.items()
    }
    return RoutingState(shares={VersionName("a"): SHARE_SLOTS}, versions=servers)


def test_a_tester_may_ask_for_what_serves():
    lanes = {VersionName("a"): 0, VersionName("b"): 1, VersionName("c"): 2}
    found = choice.versions(state(a=Mode.SERVE, b=Mode.SERVE, c=Mode.DRAIN), lanes, GOAT)
    assert found == {"a": "goat.a", "b": "goat.b"}
    assert choice.versions(RoutingState(versions=state(a=Mode.SERVE).versions), lanes, GOAT) == {}


@pytest.mark.parametrize("name", ["a b", "a\nb", "a;b", ""])
def test_a_version_that_is_none_does_not_reach_the_map(name):
    with pytest.raises(InputRefused):
        choice.versions(state(**{name: Mode.SERVE}), {VersionName(name): 0}, GOAT)


def test_only_who_needs_it_pays():
    """A service without these settings has one rule, as ever."""
    plain = TrafficSettings()
    assert list(choice.rules(GOAT, plain)) == []
    assert list(choice.backends(GOAT, plain)) == ["  use_backend %[rand(10000),map_int(goat.map,goat.none)]"]
    assert list(choice.stripped(GOAT, plain)) == []
    assert choice.files({GOAT: plain}, {}, {}, b"k") == {}
