from __future__ import annotations

import pytest

from milkrun.registry.checks.grpc_message import Code
from milkrun.registry.checks.grpc_verdict import LATE, Broken, Ended, Served, distrusted, of_call, unreached

UNCONNECTED = "rpc error: code = Unavailable desc = connection error:"


def test_serving_passes():
    result = of_call("a:1/x", Served(1))
    assert (result.status, result.output) == ("passing", "gRPC check a:1/x: success")


@pytest.mark.parametrize("status", [0, 2, 3, 7, 2**63])
def test_nothing_else_does(status):
    result = of_call("a:1", Served(status))
    assert (result.status, result.output) == ("critical", "gRPC application didn't report service healthy")


@pytest.mark.parametrize(
    ("outcome", "output"),
    [
        (Ended(5), "rpc error: code = NotFound desc = "),
        (Ended(13, "100%25 %C3%A9%0A%"), "rpc error: code = Internal desc = 100% é\n%"),
        (Ended(2, "%FF"), "rpc error: code = Unknown desc = \ufffd"),
        (Ended(99, "x"), "rpc error: code = Code(99) desc = x"),
        (LATE, "rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
        (Broken(Code.Unavailable, "gone"), "rpc error: code = Unavailable desc = gone"),
        (
            unreached("dial tcp a:1: no"),
            f'{UNCONNECTED} desc = "transport: Error while dialing dial tcp a:1: no"',
        ),
        (
            distrusted("x509: no"),
            f'{UNCONNECTED} desc = "transport: authentication handshake failed: x509: no"',
        ),
    ],
)
def test_the_texts_are_consuls(outcome, output):
    result = of_call("a:1", outcome)
    assert (result.status, result.output) == ("critical", output)


def test_an_output_is_bounded():
    assert len(of_call("a:1", Ended(2, "x" * 100_000)).output) < 5000
    assert len(of_call("a:1", Broken(Code.Unknown, "x" * 100_000)).output) < 5000


def test_words_of_the_service_are_no_news_of_ours():
    one, two = of_call("a:1", Ended(2, "at 1")), of_call("a:1", Ended(2, "at 2"))
    assert one.headline == two.headline
