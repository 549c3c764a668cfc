"""Who is put aside because of what traffic says: the one that is worse than the others, never too many, for a while."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.ejection import FIRST_S, LONGEST_S, WINDOW_S, Ejections, without
from milkrun.router.plane import InstanceCounted
from milkrun.settings.service import EjectionSettings

V1 = VersionName("v1")
DEFAULT = EjectionSettings()
STEP_S = 2.0


def served(count, *, drained=0):
    servers = {
        InstanceId(name): Server(
            id=InstanceId(name),
            address="127.0.0.1",
            port=1,
            mode=Mode.DRAIN if number < drained else Mode.SERVE,
        )
        for number, name in enumerate("abcdefghijklmnopqrstuvwxyz"[:count])
    }
    return RoutingState(shares={V1: 10_000}, versions={V1: servers})


class Herd:
    """Instances that have traffic in steps, and what is decided of them."""

    def __init__(self, count, settings=DEFAULT):
        self.state = served(count)
        self.settings = settings
        self.now = 1000.0
        self.figures = dict.fromkeys(self.state.versions[V1], InstanceCounted())
        self.ejections = Ejections()
        self.look()

    def look(self):
        self.ejections = self.ejections.judged(self.figures, self.state, self.now, self.settings)

    @property
    def out(self):
        return self.ejections.out(self.state, self.now)

    def step(self, usual=(10, 0, 5), /, **others):
        """Who serves has requests, failures and the mean time of an answer; None: what it was handed waits."""
        self.now += STEP_S
        for name in self.figures.keys() - self.out.keys():
            had = others.get(name, usual)
            before = self.figures[name]
            if had is None:
                self.figures[name] = replace(before, tried=before.tried + 10)
                continue
            requests, failures, mean = had
            self.figures[name] = InstanceCounted(
                tried=before.tried + requests,
                requests=before.requests + requests,
                failures=before.failures + failures,
                took_ms=before.took_ms + requests * mean,
            )
        self.look()

    def until_out(self, name, /, **others):
        """How long it took."""
        start = self.now
        while name not in self.out:
            self.step(**others)
            assert self.now - start < 600, f"{name} never was"
        return self.now - start

    def until_back(self, name, /, **others):
        start = self.now
        while name in self.out:
            self.step(**others)
        return self.now - start


def test_one_that_fails_is_aside_soon_and_comes_back():
    herd = Herd(3)

    assert herd.until_out("b", b=(10, 10, 5)) <= 2 * STEP_S
    assert herd.out == {
        "b": "b of v1 is put aside for 5 s: 10 of its 10 requests failed, of the others' 0 of 20"
    }
    assert FIRST_S <= herd.until_back("b") <= FIRST_S + STEP_S
    for _ in range(20):
        herd.step()
        assert herd.out == {}


def test_one_in_twenty_is_found_too_and_one_in_a_hundred_is_not():
    herd = Herd(3)
    assert herd.until_out("b", b=(100, 6, 5), a=(100, 0, 5), c=(100, 0, 5)) <= WINDOW_S
    herd = Herd(3)
    for _ in range(100):
        herd.step((1000, 2, 5), b=(1000, 10, 5))
        assert herd.out == {}


def test_what_fails_everywhere_puts_nobody_aside():
    herd = Herd(6)
    for _ in range(50):
        herd.step((10, 5, 5), b=(10, 7, 5))
        assert herd.out == {}


def test_one_that_is_silent_while_the_others_answer():
    herd = Herd(3)
    herd.step()

    assert DEFAULT.silent_s <= herd.until_out("b", b=None) <= DEFAULT.silent_s + 2 * STEP_S
    assert "requests wait for it, the first for 10 s, and the others answer" in herd.out["b"]


def test_nobody_is_silent_who_was_asked_little_or_where_all_are_or_where_answers_take_long():
    herd = Herd(3)
    herd.figures[InstanceId("b")] = InstanceCounted(tried=2)
    for _ in range(20):
        herd.step(b=(0, 0, 0))
        assert herd.out == {}
    herd = Herd(3)
    for _ in range(20):
        herd.step(a=None, b=None)
        assert herd.out == {}
    herd = Herd(3)
    for _ in range(50):
        herd.step((10, 0, 20_000), b=None)  # a long poll
        assert herd.out == {}


def test_one_that_became_slow():
    herd = Herd(3)
    for _ in range(10):
        herd.step()

    assert WINDOW_S < herd.until_out("b", b=(10, 0, 400)) <= 3 * WINDOW_S
    assert "its answers take 400 ms, the others' 5 ms" in herd.out["b"]


@pytest.mark.parametrize("mean", [20, 240])
def test_a_little_slower_is_not_slow(mean):
    herd = Herd(3)
    for _ in range(50):
        herd.step(b=(10, 0, mean))
        assert herd.out == {}


def test_one_slow_window_is_not_enough():
    herd = Herd(3)
    for _ in range(10):
        for mean in (2000, 5):
            for _ in range(int(WINDOW_S / STEP_S)):
                herd.step(b=(10, 0, mean))
                assert herd.out == {}


def test_each_time_it_is_aside_for_longer_and_after_good_conduct_for_as_long_as_the_first_time():
    herd = Herd(3)
    times = []
    for _ in range(9):
        herd.until_out("b", b=(10, 10, 5))
        times.append(herd.until_back("b"))
    expected = [min(LONGEST_S, FIRST_S * 2**number) for number in range(9)]
    assert all(want <= found <= want + STEP_S for want, found in zip(expected, times, strict=True))
    assert expected[-2:] == [LONGEST_S, LONGEST_S]

    for _ in range(int(LONGEST_S / STEP_S)):
        herd.step()
    herd.until_out("b", b=(10, 10, 5))
    assert herd.until_back("b") <= FIRST_S + STEP_S


def test_what_it_did_before_is_not_held_against_it_twice():
    """It is asked nothing while it is aside, and answers well when it is back."""
    herd = Herd(3)
    herd.until_out("b", b=None)
    herd.until_back("b")
    for _ in range(20):
        herd.step()
        assert herd.out == {}


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (9, 3)])
def test_never_more_than_a_third(count, most):
    herd = Herd(count)
    half = dict.fromkeys(list(herd.figures)[: max(1, count // 2)], (10, 10, 5))
    found = set()
    for _ in range(100):
        herd.step(**half)
        found.add(len(herd.out))
    assert max(found) == most


def test_who_leaves_service_or_takes_no_connection_makes_room_for_nobody():
    """Of three one is aside; when another one goes, the one that is aside serves again at once."""
    herd = Herd(3)
    herd.until_out("c", c=(10, 10, 5))

    assert herd.ejections.out(served(3, drained=1), herd.now) == {}
    assert herd.ejections.out(herd.state, herd.now, down={InstanceId("a")}) == {}
    assert [*herd.ejections.out(herd.state, herd.now)] == ["c"]


def test_switched_off_nobody_is():
    herd = Herd(3, EjectionSettings(enabled=False))
    for _ in range(50):
        herd.step(b=(10, 10, 5), c=None)
        assert herd.out == {}


def test_who_is_out_gets_no_new_requests_and_nothing_else_changes():
    state = served(3)

    left = without(state, {InstanceId("b")})

    assert without(state, ()) is state
    assert {name: server.mode for name, server in left.versions[V1].items()} == {
        "a": Mode.SERVE,
        "b": Mode.DRAIN,
        "c": Mode.SERVE,
    }
    assert left.shares == state.shares


HAD = st.none() | st.integers(0, 50).flatmap(
    lambda requests: st.tuples(st.just(requests), st.integers(0, requests), st.integers(0, 5000))
)


@given(st.integers(1, 9), st.data())
def test_whatever_they_do_two_thirds_serve_and_nobody_is_aside_for_ever(count, data):
    herd = Herd(count)
    for _ in range(data.draw(st.integers(0, 30))):
        herd.step(**{name: data.draw(HAD) for name in list(herd.figures)[: count // 2 + 1]})
        assert 3 * len(herd.out) <= count
    herd.now += LONGEST_S
    assert herd.out == {}
