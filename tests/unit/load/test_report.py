from milkrun.load import report
from milkrun.load.figures import Connections, Plan
from milkrun.load.ledger import Ledger

PLAN = Plan(url="http://127.0.0.1:1/milk", rate=500, duration_s=30)


def ledger() -> Ledger:
    ledger = Ledger("ab")
    for number in range(1000):
        version = "0.0.1" if number < 800 else "0.0.2"
        body = b'{"service": "goat", "version": "%s", "instance": "goat-%d"}' % (version.encode(), number % 2)
        ledger.answered(ledger.sent(0.0), 0.002, 200, body)
    return ledger


def test_a_clean_run_reads_like_this():
    assert report.lines(ledger().figures(PLAN, 2.0)) == [
        "1,000 requests in 2.0 s, 500 a second, every second one on a new connection",
        "  answered        1,000   500.0 a second",
        "  failed              0",
        "  duplicated          0",
        "latency from when each was due: p50 2.0 ms, p90 2.0 ms, p99 2.0 ms, max 2.0 ms",
        "goat         0.0.1          80.00%        800   2 instances",
        "goat         0.0.2          20.00%        200   2 instances",
    ]


def test_failures_are_named_most_frequent_first():
    book = ledger()
    for why in ("connection reset", "HTTP 503", "HTTP 503"):
        book.failed(book.sent(0.0), why)
    text = report.lines(book.figures(PLAN, 2.0))
    assert text[2:5] == [
        "  failed              3",
        "            2  HTTP 503",
        "            1  connection reset",
    ]


def test_an_interrupted_run_says_what_was_still_open():
    book = ledger()
    book.sent(0.0)
    text = "\n".join(report.lines(book.figures(PLAN, 2.0, interrupted=True)))
    assert "interrupted" in text
    assert "in flight           1" in text


def test_a_late_client_says_that_the_figures_are_its_own():
    book = ledger()
    request = book.sent(0.0)
    book.started(request, 0.2)
    book.answered(request, 0.3, 200, b"")
    assert "this client was up to 200.0 ms behind" in report.lines(book.figures(PLAN, 2.0))[-1]


def test_nothing_answered_has_no_latency_to_show():
    book = Ledger("ab")
    book.failed(book.sent(0.0), "connection refused")
    for kind in Connections:
        plan = Plan(url="http://127.0.0.1:1/", rate=1, duration_s=1, connections=kind)
        assert not any("latency" in line for line in report.lines(book.figures(plan, 1.0)))


def test_the_live_line_is_one_line():
    line = report.live(ledger().figures(PLAN, 2.0))
    assert "\n" not in line
    assert "2 of 30 s  sent 1,000  answered 1,000  failed 0  duplicated 0" in line
