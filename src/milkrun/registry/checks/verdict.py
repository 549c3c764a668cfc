"""What a probe saw, and what that means: a status and the text that an operator reads. Pure.

The texts are those that Consul 1.8.7 writes (it is a Go program, and some are Go's own); the contract suite
compares. An output is a headline, which says what happened, and the end of what the service sent.
"""

from __future__ import annotations

import re

import msgspec

from milkrun.registry.nouns import CRITICAL, PASSING, WARNING

BODY_BYTES_AT_MOST = 4096
HEADLINE_AT_MOST = 4096

_LOGIN = re.compile(r"//[^/\s]*@")
_QUERY = re.compile(r"\?[^\s\"]*?(?=:?\s|\"|$)")


class Result(msgspec.Struct, frozen=True):
    """What one probe came to."""

    status: str
    headline: str
    body: str = ""

    @property
    def output(self) -> str:
        """The whole text."""
        return self.headline + self.body


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer came: its status line and the end of its body, `read` bytes of which were read.

    `more`: there was more than this registry reads.
    """

    code: int
    reason: str
    tail: bytes = b""
    read: int = 0
    more: bool = False


class Failed(msgspec.Struct, frozen=True):
    """No usable answer came, and why."""

    why: str


def of_answer(method: str, url: str, seen: Answered) -> Result:
    """2xx passes, 429 warns, everything else is critical: a redirect too, because none is followed."""
    status = PASSING if 200 <= seen.code < 300 else WARNING if seen.code == 429 else CRITICAL
    headline = _line(f"HTTP {method} {url}: {seen.code} {seen.reason} Output: ")
    body = seen.tail.decode("utf-8", "replace")
    if seen.more:
        body += f" ... (only the first {seen.read} bytes were read)"
    return Result(status, headline, body)


def of_http_failure(method: str, url: str, seen: Failed) -> Result:
    """Critical, in the words of Go's HTTP client."""
    return Result(CRITICAL, _line(f'{method[:1].upper()}{method[1:].lower()} "{url}": {seen.why}'))


def of_connection(address: str) -> Result:
    """Passing: the address takes connections."""
    return Result(PASSING, _line(f"TCP connect {address}: Success"))


def of_failure(why: str) -> Result:
    """Critical, and why."""
    return Result(CRITICAL, _line(why))


def dial(address: str, port: int, why: str) -> str:
    """Why no connection to this address came about, as Go says it."""
    host = f"[{address}]" if ":" in address else address
    return f"dial tcp {host}:{port}: {why}"


def tail_bytes(wanted: int) -> int:
    """How many bytes of a body are shown when the check wants `wanted` (0: it does not say)."""
    return min(wanted, BODY_BYTES_AT_MOST) if wanted > 0 else BODY_BYTES_AT_MOST


def for_log(headline: str) -> str:
    """The headline as it may be logged: without the user and password of a URL, and without its query."""
    return _QUERY.sub("", _LOGIN.sub("//", headline)).removesuffix(" Output: ")


def _line(text: str) -> str:
    return text if len(text) <= HEADLINE_AT_MOST else f"{text[:HEADLINE_AT_MOST]} ..."
