"""Why nobody answers at the registry's address, in words for the person who has to find out."""

from __future__ import annotations

import errno
import os

import aiohttp


def why(error: BaseException, wait_s: float) -> str:
    """The reason, in a few plain words: no addresses, no class names. `wait_s` is how long was waited."""
    match error:
        case TimeoutError():
            return f"no answer in {wait_s:.3g} s"
        case aiohttp.InvalidURL():
            return "that is no address"
        case aiohttp.ClientConnectorDNSError():
            return "the host's name is not known"
        case aiohttp.ClientConnectorCertificateError():
            return "its TLS certificate is not trusted here; CONSUL_CACERT names the file of who signed it"
        case aiohttp.ClientSSLError():
            return "no TLS is spoken there; is it http:// instead of https://?"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "the connection broke within the answer"
        case aiohttp.ClientResponseError():
            return "what answers there does not speak HTTP"
        case OSError() if error.errno is not None:
            return _of_number(error.errno)
        case _:
            return "the connection broke"


def _of_number(number: int) -> str:
    match number:
        case errno.ECONNREFUSED:
            return "connection refused: nothing listens there"
        case errno.ECONNRESET | errno.EPIPE:
            return "the connection was reset"
        case _:
            return os.strerror(number).lower()
