"""What a look says: by what was counted, whether the time is over, and what was remembered."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.latency import bucket
from milkrun.model import InstanceId
from milkrun.rollout.analysis import failures
from milkrun.rollout.analysis.judge import guards, look, together
from milkrun.rollout.analysis.verdict import Counts, Evidence, Finding, InstanceSeen, Outcome, Seen
from milkrun.settings.rollout import AnalysisSettings

SETTINGS = AnalysisSettings()


def seen(requests, failures=0, *, instances=3, ms=100.0):
    each = requests // max(1, instances)
    return Seen(
        requests=requests,
        failures=failures,
        latency={bucket(90_000): requests // 2, bucket(150_000): requests - requests // 2}
        if requests
        else {},
        instances={
            InstanceId(f"i-{number}"): InstanceSeen(
                requests=each, failures=0, mean_ms=ms if requests else 0.0
            )
            for number in range(instances)
        },
    )


def judged(canary, stable, *, final=True, evidence=None, settings=SETTINGS):
    return look(settings, evidence or Evidence(), canary, stable, final=final)[1]


def by(verdict, metric):
    return next(finding for finding in verdict.findings if finding.metric == metric)


GOOD = seen(3000, 3), seen(9000, 9, instances=6)


def test_a_good_version_passes_when_its_time_is_over_and_not_before():
    assert judged(*GOOD).outcome is Outcome.PASS
    assert judged(*GOOD, final=False).outcome is Outcome.INCONCLUSIVE


def test_a_version_that_fails_more_fails_before_its_time_is_over():
    verdict = judged(seen(300, 30), seen(2700, 3, instances=6), final=False)

    assert verdict.outcome is Outcome.FAIL
    assert verdict.needs == 0
    assert "30 of 300 (10 %)" in by(verdict, "failures").said


def test_a_slow_version_fails():
    verdict = judged(seen(3000, 3, ms=160.0), seen(9000, 9, instances=6), final=False)

    assert verdict.outcome is Outcome.FAIL
    assert by(verdict, "latency").outcome is Outcome.FAIL
    assert by(verdict, "latency").canary == pytest.approx(160.0)


@pytest.mark.parametrize("final", [False, True])
def test_no_data_is_no_verdict(final):
    verdict = judged(seen(0), seen(9000, 9), final=final)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.needs > 0


def test_too_little_data_says_how_much_more():
    verdict = judged(seen(600), seen(5400, instances=6))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    more = verdict.needs
    assert f"about {more} more requests" in by(verdict, "failures").said
    assert judged(seen(600 + more), seen(9 * (600 + more), instances=6)).outcome is Outcome.PASS


def test_the_old_version_needs_its_requests_too():
    """400 of them, while the new version had enough."""
    verdict = judged(seen(40_000, 40), seen(400))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.needs >= 10_000


def test_the_least_number_is_asked_of_the_old_version_too():
    settings = AnalysisSettings(min_requests=1000)
    verdict = judged(seen(5000, 5), seen(900), settings=settings)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert by(verdict, "failures").needs == 556  # with these, the old version has its 100 more
    assert judged(seen(5600, 5), seen(1008), settings=settings).outcome is Outcome.PASS


def test_as_slow_as_allowed_is_no_failure_however_sure_it_is():
    old = seen(60_000, instances=60)

    assert judged(seen(60_000, instances=60, ms=109.0), old).outcome is Outcome.PASS
    assert judged(seen(60_000, instances=60, ms=125.0), old).outcome is Outcome.FAIL


def test_latency_is_tested_when_the_window_has_doubled_and_at_its_end():
    """Each test costs a part of the false alarms, so looks in between are none."""

    def outcome(evidence, requests, ms=100.0, *, final=False):
        canary, stable = seen(requests, ms=ms), seen(9 * requests, instances=6)
        evidence, verdict = look(SETTINGS, evidence, canary, stable, final=final, window="c1")
        return evidence, by(verdict, "latency").outcome

    first, _ = outcome(Evidence(), 600)
    second, between = outcome(first, 1100, 200.0)

    assert between is Outcome.INCONCLUSIVE
    assert second.latency_tests == 1
    assert outcome(second, 1250, 200.0)[1] is Outcome.FAIL
    assert outcome(second, 1100, 200.0, final=True)[1] is Outcome.FAIL
    assert outcome(second, 1250)[0].latency_tests == 2


def test_ten_thousand_good_requests_do_not_hide_bad_ones():
    evidence, _ = look(SETTINGS, Evidence(), seen(20_000, 20), seen(180_000, 180), final=False)
    for number in range(1, 5):
        canary, stable = (
            seen(20_000 + 150 * number, 20 + 8 * number),
            seen(180_000 + 1350 * number, 180 + number),
        )
        evidence, verdict = look(SETTINGS, evidence, canary, stable, final=False)

    assert evidence.window == 1
    assert by(verdict, "failures").outcome is Outcome.FAIL


def test_nothing_that_a_bet_decides_has_chosen_it():
    """The old version's rate is taken from earlier looks."""
    first, _ = look(SETTINGS, Evidence(), seen(500, 2), seen(500, 20), final=False)
    stakes = failures.put_down([], failures.window_part(1) + failures.within_part(0, 500))
    new = Counts(canary=500, canary_failures=2, stable=500, stable_failures=20)

    assert first.bets == failures.grown(stakes, new, failures.stable_rate(Counts()), 0.005, 0.03)


def test_an_old_version_without_traffic_is_no_comparison_but_the_limit_goes_on():
    fine, bad = judged(seen(5000, 5), seen(0)), judged(seen(5000, 500), seen(0))

    assert fine.outcome is Outcome.INCONCLUSIVE
    assert "held against the limit of 5 % only" in by(fine, "failures").said
    assert bad.outcome is Outcome.FAIL
    assert guards(SETTINGS, seen(5000, 500)) != []


def test_a_service_without_latency_is_judged_by_its_failures_and_says_so():
    canary, stable = (msgspec.structs.replace(one, latency={}, instances={}) for one in GOOD)
    verdict = judged(canary, stable)

    assert verdict.outcome is Outcome.PASS
    assert by(verdict, "latency").outcome is Outcome.INCONCLUSIVE
    assert not by(verdict, "latency").holds
    assert "not compared" in by(verdict, "latency").said


def test_one_instance_is_no_reason_to_wait_for_ever_and_says_what_it_shows():
    verdict = judged(seen(3000, 3, instances=1), seen(9000, 9))

    assert verdict.outcome is Outcome.PASS
    assert "among so few instances (1 new and 3 old) only a version that is" in by(verdict, "latency").said


def test_more_failures_than_allowed_that_may_be_chance_do_not_pass():
    verdict = judged(seen(1500, 12), seen(13_500, 14, instances=6))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "may still be chance" in by(verdict, "failures").said


def test_what_does_not_hold_is_not_waited_for_but_something_has_to_pass():
    told = Finding(
        metric="x", outcome=Outcome.INCONCLUSIVE, canary=None, stable=None, needs=9, said="", holds=False
    )
    passed = msgspec.structs.replace(told, outcome=Outcome.PASS, needs=0, holds=True)

    assert together([told], final=True).outcome is Outcome.INCONCLUSIVE
    assert together([told, passed], final=True).outcome is Outcome.PASS
    assert together([told, passed], final=True).needs == 0
    assert together([told, passed], final=False).outcome is Outcome.INCONCLUSIVE
    assert (
        together([passed, msgspec.structs.replace(told, outcome=Outcome.FAIL)], final=True).outcome
        is Outcome.FAIL
    )


def test_the_same_look_again_changes_nothing():
    evidence, verdict = look(SETTINGS, Evidence(), *GOOD, final=False)
    again, same = look(SETTINGS, evidence, *GOOD, final=False)

    assert again == evidence
    assert same == verdict


def test_a_router_that_is_away_for_a_while_makes_no_request_count_twice():
    """Its report is missing at every second look: in a window with a name, what was counted stays counted."""
    evidence, _ = look(SETTINGS, Evidence(), seen(1000, 9), seen(9000, 9), final=False, window="c1")
    away, _ = look(SETTINGS, evidence, seen(500, 2), seen(4500, 4), final=False, window="c1")
    back, _ = look(SETTINGS, away, seen(1000, 9), seen(9000, 9), final=False, window="c1")

    assert away.bets == evidence.bets
    assert back.bets == evidence.bets


def test_a_commit_that_begins_no_window_makes_no_request_count_twice():
    """The name changes, the routers' counts go on: what was in them is left out of the new window."""
    first, _ = look(SETTINGS, Evidence(), seen(3000, 9), seen(9000, 9), final=False, window="c1")
    second, verdict = look(SETTINGS, first, seen(3000, 9), seen(9000, 9), final=True, window="c2")
    third, after = look(SETTINGS, second, seen(6000, 12), seen(18_000, 18), final=True, window="c2")

    assert second.bets == first.bets
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert third.window == 2
    assert "3 of 3,000" in by(after, "failures").said
    assert after.outcome is Outcome.PASS


@pytest.mark.parametrize("names", [("", ""), ("c1", "c2")])
def test_a_new_window_is_noticed_and_adds_to_what_is_known(names):
    first, _ = look(SETTINGS, Evidence(), *GOOD, final=False, window=names[0])
    second, verdict = look(SETTINGS, first, seen(100), seen(900), final=True, window=names[1])

    assert (first.window, second.window) == (1, 2)
    assert second.before == first.counted
    assert verdict.outcome is Outcome.INCONCLUSIVE  # each window has to see enough itself


def test_evidence_of_a_long_rollout_is_small_and_goes_through_json():
    evidence = Evidence()
    for number in range(1, 200):
        evidence, _ = look(
            SETTINGS,
            evidence,
            seen(number * 50, number),
            seen(number * 500, number),
            final=False,
            window="c1",
        )
    text = msgspec.json.encode(evidence)

    assert len(text) < 600
    assert msgspec.json.decode(text, type=Evidence) == evidence


counts = st.integers(-5, 10**7)
sides = st.builds(
    Seen,
    requests=counts,
    failures=counts,
    latency=st.dictionaries(st.integers(-2, 500), st.integers(0, 10**6), max_size=4),
    instances=st.dictionaries(
        st.sampled_from([InstanceId(f"i-{number}") for number in range(6)]),
        st.builds(InstanceSeen, requests=counts, failures=counts, mean_ms=st.floats()),
    ),
    restarts=st.integers(0, 3),
)
any_settings = st.builds(
    AnalysisSettings,
    failures_at_most=st.floats(0, 100),
    p99_ms_at_most=st.floats(0, 1e6),
    failures_worse_by=st.floats(0, 50),
    failures_matter_from=st.floats(50.1, 100),
    latency_worse_by=st.floats(0, 100),
    latency_matters_from=st.floats(100.1, 1000),
    false_alarm=st.floats(0.0001, 0.2),
    min_requests=st.integers(1, 10**7),
)


@settings(deadline=None)
@given(settings=any_settings, looks=st.lists(st.tuples(sides, sides, st.booleans()), max_size=4))
def test_any_counts_in_any_order_have_a_verdict(settings, looks):
    evidence = Evidence()
    for canary, stable, final in looks:
        guards(settings, canary)
        evidence, verdict = look(settings, evidence, canary, stable, final=final)
        assert verdict.needs >= 0
        assert verdict.outcome is not Outcome.PASS or (final and canary.requests > 0 < stable.requests)
        assert msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence) == evidence


@settings(deadline=None)
@given(
    requests=st.integers(1, 20_000),
    stable=st.integers(1, 20_000),
    rates=st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)),
    stable_rate=st.floats(0, 0.1),
    final=st.booleans(),
)
def test_more_failures_never_make_it_better(*, requests, stable, rates, stable_rate, final):
    order = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]
    fewer, more = sorted(int(requests * rate) for rate in rates)
    old = seen(stable, int(stable * stable_rate))
    one, other = (judged(seen(requests, count), old, final=final).outcome for count in (fewer, more))

    assert order.index(one) <= order.index(other)


@settings(deadline=None)
@given(requests=st.integers(0, 100_000), stable=st.integers(0, 100_000))
def test_two_versions_without_a_failure_are_never_told_apart(requests, stable):
    assert judged(seen(requests), seen(stable)).outcome is not Outcome.FAIL
