from hypothesis import given
from hypothesis import strategies as st

from milkrun.agent.health import Probe, State, adopted, fresh, judge

GOOD, BAD = Probe(ok=True, reason="GET /health: 200"), Probe(ok=False, reason="connection refused")


def after(gauge, *probes, rise=2, fall=3):
    for now, probe in enumerate(probes, 1):
        gauge = judge(gauge, probe, float(now), rise=rise, fall=fall)
    return gauge


def test_rises_after_so_many_good_answers_in_a_row():
    assert after(fresh(0), GOOD).state is State.STARTING
    assert after(fresh(0), GOOD, BAD, GOOD).state is State.STARTING
    assert after(fresh(0), GOOD, BAD, GOOD, GOOD).state is State.HEALTHY


def test_falls_after_so_many_bad_answers_in_a_row():
    healthy = after(fresh(0), GOOD, GOOD)
    assert after(healthy, BAD, BAD, GOOD, BAD, BAD).state is State.HEALTHY
    fallen = after(healthy, BAD, BAD, BAD)
    assert fallen.state is State.UNHEALTHY
    assert fallen.reason == "connection refused"
    assert after(fallen, GOOD).state is State.UNHEALTHY
    assert after(fallen, GOOD, GOOD).state is State.HEALTHY


def test_a_process_that_is_still_starting_is_not_called_unhealthy():
    assert after(fresh(0), *[BAD] * 20).state is State.STARTING


def test_an_adopted_instance_needs_one_good_answer_and_falls_like_a_running_one():
    assert adopted(0, rise=3).state is State.STARTING
    assert after(adopted(0, rise=3), GOOD, rise=3).state is State.HEALTHY
    assert after(adopted(0, rise=2), BAD, BAD).state is State.STARTING
    assert after(adopted(0, rise=2), BAD, BAD, BAD).state is State.UNHEALTHY


def test_it_says_since_when():
    assert after(fresh(0), GOOD, GOOD, GOOD, GOOD).since == 2.0


@given(st.lists(st.booleans()), st.integers(-3, 5), st.integers(-3, 5), st.booleans())
def test_no_data_is_never_success(answers, rise, fall, known):
    """Whatever the thresholds: healthy was preceded by as many good answers as it takes, at least one."""
    gauge = adopted(0, rise=rise) if known else fresh(0)
    good = max(0, rise - 1) if known else 0
    for now, ok in enumerate(answers):
        before = gauge.state
        gauge = judge(gauge, GOOD if ok else BAD, float(now), rise=rise, fall=fall)
        good = good + 1 if ok else 0
        if gauge.state is State.HEALTHY and before is not State.HEALTHY:
            assert ok
            assert good >= max(1, rise)
