"""Why a request got no answer, in words that fit in a list of few kinds."""

from __future__ import annotations

import errno
import os

import aiohttp

OVERLOADED = "client overloaded"

_CLIENT_FULL = {
    errno.EMFILE: "no open files left: raise `ulimit -n`",
    errno.ENFILE: "no open files left on this machine",
    errno.EADDRNOTAVAIL: "no local ports left",
    errno.ENOBUFS: "no socket memory left",
}


def why(error: BaseException, timeout_s: float) -> str:
    """The reason, without addresses and numbers that would make each failure its own kind."""
    match error:
        case TimeoutError():
            return f"no complete answer within {timeout_s:g} s"
        case aiohttp.ClientConnectorDNSError():
            return "the host's name is not known"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "TLS refused"
        case aiohttp.ServerDisconnectedError():
            return "connection closed before the answer"
        case aiohttp.ClientPayloadError():
            return "answer cut short"
        case OSError():
            return _of_number(error.errno)
        case _:
            return "not an HTTP answer"


def _of_number(number: int | None) -> str:
    if number in _CLIENT_FULL:
        return f"{OVERLOADED}: {_CLIENT_FULL[number]}"
    match number:
        case None:
            return "connection broken"
        case errno.ECONNREFUSED:
            return "connection refused"
        case errno.ECONNRESET | errno.EPIPE:
            return "connection reset"
        case _:
            return os.strerror(number).lower()
