import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.agent.health import Probe, State, fresh
from milkrun.agent.life import (
    LAST_BACKOFF_S,
    STEADY_S,
    Ended,
    Failed,
    Life,
    Phase,
    Probed,
    Started,
    StopAsked,
    Waiting,
    backoff_s,
    step,
)
from milkrun.agent.unit import _state

GOOD = Probed(Probe(ok=True, reason="GET /health: 200"), 2, 3)
BAD = Probed(Probe(ok=False, reason="GET /health: 503"), 2, 3)


def through(*events, now=0.0):
    life = Life()
    for event in events:
        life = step(life, event, now=now, jitter=0.5)
    return life


def test_from_start_to_stop():
    begun = (Started(fresh(0)), GOOD)
    assert through(*begun).phase is Phase.STARTING
    assert through(*begun, GOOD).phase is Phase.HEALTHY
    assert through(*begun, GOOD, BAD, BAD, BAD).phase is Phase.UNHEALTHY
    assert through(*begun, GOOD, StopAsked("git asks for 0")).phase is Phase.DRAINING
    assert through(*begun, GOOD, StopAsked("git asks for 0"), Ended()).phase is Phase.STOPPED


def test_a_crash_is_followed_by_a_start_after_a_pause():
    life = through(Started(fresh(0)), GOOD, GOOD, Failed("killed by signal 9"), now=5.0)
    assert (life.phase, life.reason, life.failures) == (Phase.BACKOFF, "killed by signal 9", 1)
    assert 5.05 <= life.restart_at <= 5.1
    again = step(life, Started(fresh(6)), now=6.0, jitter=0)
    assert (again.phase, again.starts) == (Phase.STARTING, 2)


def test_to_wait_for_others_is_no_failure():
    life = through(Waiting("waits for tcp://127.0.0.1:5432: connection refused"), now=5.0)
    assert (life.phase, life.failures, _state(life)) == (Phase.BACKOFF, 0, "starting")
    assert life.reason.startswith("waits for")
    assert 5.2 <= life.restart_at <= 5.5
    assert step(life, Started(fresh(6)), now=6.0, jitter=0).reason == ""
    for other in (through(Started(fresh(0))), through(StopAsked("git asks for 0"))):
        assert step(other, Waiting("x"), now=1.0, jitter=0) == other


@pytest.mark.parametrize(("healthy_s", "failures"), [(STEADY_S - 1, 4), (STEADY_S, 1)])
def test_a_long_healthy_time_forgives_old_crashes(healthy_s, failures):
    life = through(*[Failed("x")] * 3, Started(fresh(0)), GOOD, GOOD)
    assert step(life, Failed("y"), now=healthy_s, jitter=0).failures == failures


def test_the_pause_doubles_up_to_its_limit():
    assert [backoff_s(n, 1.0) for n in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert backoff_s(1000, 1.0) == LAST_BACKOFF_S
    assert backoff_s(3, 0.0) == 0.2


def test_an_answer_after_the_process_ended_changes_nothing():
    life = through(Started(fresh(0)), GOOD, Failed("killed by signal 9"))
    assert step(life, GOOD, now=1, jitter=0) == life


events = st.one_of(
    st.just(Started(fresh(0))), st.just(GOOD), st.just(BAD), st.just(Failed("x")), st.just(StopAsked("y")),
    st.just(Ended()),
)  # fmt: skip


@given(st.lists(events, max_size=30))
def test_there_is_no_way_back_from_draining_and_none_to_healthy_without_probes(history):
    life = Life()
    for event in history:
        before, life = life, step(life, event, now=0, jitter=0)
        if before.phase is Phase.DRAINING:
            assert life.phase in (Phase.DRAINING, Phase.STOPPED)
            assert life.reason == before.reason
        if before.phase is Phase.STOPPED:
            assert life == before
        if life.phase is Phase.HEALTHY:
            assert life.gauge is not None
            assert life.gauge.state is State.HEALTHY
        if life.phase is Phase.STOPPED:
            assert before.phase in (Phase.DRAINING, Phase.STOPPED)


def test_what_waits_for_its_first_start_is_reported_as_starting_and_a_failed_one_is_not():
    assert _state(Life()) == "starting"
    assert _state(through(Failed("gone"))) == "backoff"
    assert _state(through(Started(fresh(0.0)), GOOD, GOOD)) == "healthy"
