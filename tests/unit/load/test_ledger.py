import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from milkrun.load.figures import Connections, Figures, Plan
from milkrun.load.ledger import Ledger

PLAN = Plan(url="http://127.0.0.1:1/milk", rate=500, duration_s=2)


def bottle(version: str, request: str = "", instance: str = "goat-1") -> bytes:
    return msgspec.json.encode(
        {"goat": {"service": "goat", "version": version, "instance": instance}, "request": request}
    )


def test_a_request_is_sent_answered_and_accounted_for():
    ledger = Ledger("ab")
    first, second = ledger.sent(10.0), ledger.sent(10.002)
    assert first != second
    ledger.answered(first, 10.004, 200, bottle("0.0.1", first), first)
    figures = ledger.figures(PLAN, 2.0)
    assert (figures.sent, figures.answered, figures.failed, figures.in_flight) == (2, 1, 0, 1)
    assert figures.achieved_rate == 0.5
    assert figures.statuses == {200: 1}
    assert not figures.duplicated


def test_latency_runs_from_when_the_request_was_due_not_from_when_it_left():
    ledger = Ledger("ab")
    request = ledger.sent(10.0)
    ledger.started(request, 10.250)
    ledger.answered(request, 10.300, 200, b"")
    figures = ledger.figures(PLAN, 1.0)
    assert figures.latency.max_ms == pytest.approx(300)
    assert figures.latency.p50_ms == pytest.approx(300, rel=0.004)
    assert figures.late_ms == pytest.approx(250)


def test_shares_are_of_the_answers_that_named_the_service():
    ledger = Ledger("ab")
    for number in range(10):
        request = ledger.sent(0.0)
        version = "0.0.2" if number == 0 else "0.0.1"
        ledger.answered(request, 0.1, 200, bottle(version, request, f"goat-{number % 2}"))
    for _ in range(5):
        ledger.answered(ledger.sent(0.0), 0.1, 200, b"no label")
    shares = {share.version: share for share in ledger.figures(PLAN, 1.0).shares}
    assert (shares["0.0.1"].answered, shares["0.0.1"].share) == (9, 0.9)
    assert (shares["0.0.2"].answered, shares["0.0.2"].share) == (1, 0.1)
    assert shares["0.0.1"].instances == {"goat-0": 4, "goat-1": 5}


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_error_status_is_a_failure_with_its_number_and_gives_no_share(status):
    ledger = Ledger("ab")
    ledger.answered(ledger.sent(0.0), 0.1, status, bottle("0.0.1"))
    figures = ledger.figures(PLAN, 1.0)
    assert (figures.answered, figures.failures) == (0, {f"HTTP {status}": 1})
    assert figures.shares == []
    assert figures.latency.max_ms == 0
    assert figures.statuses == {status: 1}


def test_an_id_answered_twice_is_duplicated():
    ledger = Ledger("ab")
    request = ledger.sent(0.0)
    ledger.answered(request, 0.1, 200, bottle("0.0.1", request))
    ledger.answered(request, 0.2, 200, bottle("0.0.1", request))
    figures = ledger.figures(PLAN, 1.0)
    assert (figures.sent, figures.answered, figures.duplicated) == (1, 1, 1)
    assert figures.statuses == {200: 2}


@pytest.mark.parametrize("where", ["header", "body"])
@pytest.mark.parametrize("other", ["load-ab-0", "load-of-another-run-0"])
def test_an_answer_that_names_another_request_is_duplicated_and_no_answer(where, other):
    ledger = Ledger("ab")
    ledger.sent(0.0)
    request = ledger.sent(0.0)
    named = other if where == "header" else request
    body = bottle("0.0.1", other if where == "body" else request)
    ledger.answered(request, 0.1, 200, body, named)
    figures = ledger.figures(PLAN, 1.0)
    assert (figures.answered, figures.failed, figures.duplicated) == (0, 1, 1)


def test_ids_that_are_not_a_load_runs_name_no_other_request():
    ledger = Ledger("ab")
    ledger.answered(ledger.sent(0.0), 0.1, 200, b'{"request": "GET /"}', "a-proxys-own-id")
    assert ledger.figures(PLAN, 1.0).answered == 1


def test_a_failure_after_the_answer_takes_nothing_back():
    ledger = Ledger("ab")
    request = ledger.sent(0.0)
    ledger.answered(request, 0.1, 200, b"")
    ledger.failed(request, "connection reset")
    assert ledger.figures(PLAN, 1.0).failed == 0


def test_kinds_are_bounded_and_none_is_lost():
    ledger = Ledger("ab")
    for number in range(300):
        ledger.failed(ledger.sent(0.0), f"reason {number}")
    for number in range(10_050):
        ledger.answered(ledger.sent(0.0), 0.1, 200, bottle(str(number)))
    figures = ledger.figures(PLAN, 1.0)
    assert len(figures.failures) == 101
    assert sum(figures.failures.values()) == figures.failed == 300
    assert len(figures.shares) == 10_001
    assert sum(share.answered for share in figures.shares) == 10_050


def test_clean_is_answered_and_nothing_wrong():
    def figures(*, answered: bool = True, failed: bool = False, twice: bool = False) -> Figures:
        ledger = Ledger("ab")
        if answered:
            request = ledger.sent(0.0)
            ledger.answered(request, 0.1, 200, b"")
            if twice:
                ledger.answered(request, 0.1, 200, b"")
        if failed:
            ledger.failed(ledger.sent(0.0), "connection refused")
        return ledger.figures(PLAN, 1.0)

    assert figures().clean
    assert not figures(answered=False).clean  # no data is never success
    assert not figures(failed=True).clean
    assert not figures(twice=True).clean


def test_figures_are_one_json_object_and_come_back_the_same():
    ledger = Ledger("ab")
    ledger.answered(ledger.sent(0.0), 0.1, 200, bottle("0.0.1"))
    ledger.answered(ledger.sent(0.0), 0.1, 503, b"")
    figures = ledger.figures(PLAN, 1.0, interrupted=True)
    assert msgspec.json.decode(msgspec.json.encode(figures), type=Figures) == figures


@given(st.floats(0.001, 10_000), st.floats(0.001, 10_000))
def test_a_plan_has_its_rate_times_its_duration_arrivals(rate, duration_s):
    plan = Plan(url="", rate=rate, duration_s=duration_s, connections=Connections.BOTH)
    assert plan.arrivals >= 1
    assert abs(plan.arrivals - rate * duration_s) <= 0.5 or plan.arrivals == 1


class LedgerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, the ledger balances."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger("ab")
        self.sent = 0
        self.closed: set[str] = set()
        self.twice = 0

    @rule(target=requests)
    def send(self):
        self.sent += 1
        return self.ledger.sent(0.0)

    @rule(request=requests, status=st.sampled_from([200, 302, 500]))
    def answer(self, request, status):
        self.twice += request in self.closed
        self.closed.add(request)
        self.ledger.answered(request, 0.5, status, bottle("1", request))

    @rule(request=consumes(requests))
    def fail(self, request):
        self.closed.add(request)
        self.ledger.failed(request, "connection reset")

    @invariant()
    def balances(self):
        figures = self.ledger.figures(PLAN, 1.0)
        assert figures.sent == self.sent == figures.answered + figures.failed + figures.in_flight
        assert figures.in_flight == self.ledger.in_flight == self.sent - len(self.closed)
        assert figures.duplicated == self.twice
        assert sum(share.answered for share in figures.shares) == figures.answered


LedgerMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestLedgerMachine = LedgerMachine.TestCase
