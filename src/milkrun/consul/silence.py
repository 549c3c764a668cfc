"""Why nobody answers at the registry's address, in words for the person who has to find out."""

from __future__ import annotations

import errno
import os
import ssl

import aiohttp

from milkrun.consul.tls import Tls

_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME = (62, 64)
"""The numbers of X509_V_ERR_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED, _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH."""


def why(error: BaseException, wait_s: float, tls: Tls | None = None) -> str:
    """The reason, in a few plain words: no addresses, no class names.

    `wait_s` is how long was waited, `tls` how TLS was spoken, if it was.
    """
    if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError) or isinstance(error.__cause__, ssl.SSLError):
        return _of_tls(error, tls)
    match error:
        case TimeoutError():
            return f"no answer in {wait_s:.3g} s"
        case aiohttp.InvalidURL():
            return "that is no address"
        case aiohttp.ClientConnectorDNSError():
            return "the host's name is not known"
        case aiohttp.ServerDisconnectedError():
            perhaps = f"perhaps {_refused(tls)}" if tls else "is it https:// instead of http://?"
            return f"it closed the connection without an answer; {perhaps}"
        case aiohttp.ClientPayloadError():
            return "the connection broke within the answer"
        case aiohttp.ClientResponseError():
            return "what answers there does not speak HTTP"
        case OSError() if error.errno is not None:
            return _of_number(error.errno)
        case _:
            return "the connection broke"


def _of_tls(error: BaseException, tls: Tls | None) -> str:
    inner = (
        error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    )  # aiohttp's own knows less
    if isinstance(inner, ssl.SSLCertVerificationError):
        return _of_certificate(inner.verify_code)
    if isinstance(inner, ssl.SSLError) and "ALERT" in (inner.reason or ""):
        return _refused(tls)
    return "no TLS is spoken there; is it http:// instead of https://?"


def _of_certificate(fault: int) -> str:
    if fault in _OTHER_NAME:
        return "its TLS certificate is for another name; CONSUL_TLS_SERVER_NAME says which one to ask for"
    if fault == _EXPIRED:
        return "its TLS certificate has expired"
    if fault == _NOT_YET:
        return "its TLS certificate is not valid yet; is the clock right?"
    return "its TLS certificate is not trusted here; CONSUL_CACERT names the file of who signed it"


def _refused(tls: Tls | None) -> str:
    if tls and tls.cert:
        return "it does not take the certificate of CONSUL_CLIENT_CERT"
    return "it wants a client's certificate; CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY name the files"


def _of_number(number: int) -> str:
    match number:
        case errno.ECONNREFUSED:
            return "connection refused: nothing listens there"
        case errno.ECONNRESET | errno.EPIPE:
            return "the connection was reset"
        case _:
            return os.strerror(number).lower()
