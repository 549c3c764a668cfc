from __future__ import annotations

import pytest

from milkrun.registry.checks import verdict
from milkrun.registry.checks.verdict import Answered, Failed


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (200, "passing"),
        (204, "passing"),
        (299, "passing"),
        (429, "warning"),
        (199, "critical"),
        (301, "critical"),
        (302, "critical"),
        (304, "critical"),
        (428, "critical"),
        (500, "critical"),
    ],
)
def test_what_a_status_means(code, status):
    assert verdict.of_answer("GET", "http://x", Answered(code=code, reason="R")).status == status


def test_the_texts_are_consuls():
    answered = Answered(code=200, reason="OK", tail=b"hello", read=5)
    assert (
        verdict.of_answer("GET", "http://x/y", answered).output == "HTTP GET http://x/y: 200 OK Output: hello"
    )
    assert verdict.of_http_failure("POST", "http://x", Failed("EOF")).output == 'Post "http://x": EOF'
    assert verdict.of_connection("a:1").output == "TCP connect a:1: Success"
    assert verdict.dial("::1", 80, "i/o timeout") == "dial tcp [::1]:80: i/o timeout"


def test_bytes_that_are_no_text_are_marked():
    assert (
        verdict.of_answer("GET", "u", Answered(code=200, reason="OK", tail=b"\xff\xfeok")).body
        == "\ufffd\ufffdok"
    )


def test_what_was_not_read_is_said():
    seen = Answered(code=200, reason="OK", tail=b"ab", read=65536, more=True)
    assert verdict.of_answer("GET", "u", seen).body == "ab ... (only the first 65536 bytes were read)"


@pytest.mark.parametrize(("wanted", "given"), [(0, 4096), (10, 10), (4096, 4096), (10**9, 4096)])
def test_how_much_of_a_body_is_shown(wanted, given):
    assert verdict.tail_bytes(wanted) == given


def test_a_headline_is_bounded():
    assert len(verdict.of_failure("x" * 100_000).output) < 5000


@pytest.mark.parametrize(
    ("headline", "logged"),
    [
        ("HTTP GET http://u:secret@h/p?token=secret: 200 OK Output: ", "HTTP GET http://h/p: 200 OK"),
        ('Get "https://u:secret@h/p?token=secret": EOF', 'Get "https://h/p": EOF'),
        ("dial tcp 10.0.0.1:80: i/o timeout", "dial tcp 10.0.0.1:80: i/o timeout"),
    ],
)
def test_no_secret_of_a_url_is_logged(headline, logged):
    assert verdict.for_log(headline) == logged
