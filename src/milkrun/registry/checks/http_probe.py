"""One HTTP probe: a request to a pinned address, bounded in time and size; no redirect, proxy or cookie."""

from __future__ import annotations

import asyncio
import base64
import errno
import socket
import ssl
from functools import cached_property
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from milkrun.registry.checks.definition import Http
from milkrun.registry.checks.target import Web
from milkrun.registry.checks.tcp_probe import why
from milkrun.registry.checks.verdict import Answered, Failed, dial, tail_bytes

READ_BYTES_AT_MOST = 64 * 1024
_CHUNK_BYTES = 4096
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say how the message is framed and packed: a check may not lie about that."""
_LATE = Failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")


class _NoNames(AbstractResolver):
    """Every address is pinned before; a name here would have escaped the judge."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Nothing."""
        raise OSError(f"{host} port {port} ({family.name}): names are resolved before")

    async def close(self) -> None:
        """Nothing is open."""


class _Heard:
    """What came of an answer so far, also when the time runs out within it."""

    def __init__(self, tail_at_most: int) -> None:
        self._tail_at_most = tail_at_most
        self.code = 0
        self.reason = ""
        self.read = 0
        self.tail = b""
        self.more = False

    def take(self, chunk: bytes) -> None:
        """The chunk counts; its end is kept."""
        self.read += len(chunk)
        self.tail = (self.tail + chunk)[-self._tail_at_most :]

    def answered(self) -> Answered:
        """The answer as far as it came."""
        return Answered(code=self.code, reason=self.reason, tail=self.tail, read=self.read, more=self.more)


class HttpProbe:
    """Asks URLs how they are, each time on a new connection."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, resolver=_NoNames()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http:
            await self._http.close()

    async def ask(self, http: Http, web: Web, addresses: list[str], timeout_s: float) -> Answered | Failed:
        """The answer of the first address that takes the connection; an answer cut short counts by its status."""
        first: Failed | None = None
        heard = _Heard(tail_bytes(http.output_bytes))
        try:
            async with asyncio.timeout(timeout_s):
                for address in addresses:
                    failed = await self._ask(http, web, address, heard)
                    if failed is None:
                        break
                    first = first or failed
        except TimeoutError:
            return heard.answered() if heard.code else first or _LATE
        return heard.answered() if heard.code else first or _LATE

    async def _ask(self, http: Http, web: Web, address: str, heard: _Heard) -> Failed | None:
        if self._http is None:
            raise RuntimeError("use `async with HttpProbe()`")
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._http.request(
                http.method,
                f"{web.scheme}://{host}:{web.target.port}{web.path}",
                headers=_headers(http, web),
                data=http.body.encode() or None,
                allow_redirects=False,
                ssl=self._unverified if http.skip_verify else self._verified,
                server_hostname=(http.server_name or web.target.host) if web.scheme == "https" else None,
            ) as reply:
                heard.code, heard.reason = reply.status, reply.reason or ""
                await _read(reply, heard)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Once the status is there the answer counts by it, as with Consul.
            return None if heard.code else Failed(_why(error, address, web.target.port))
        return None

    @cached_property
    def _verified(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    @cached_property
    def _unverified(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


async def _read(reply: aiohttp.ClientResponse, heard: _Heard) -> None:
    async for chunk in reply.content.iter_chunked(_CHUNK_BYTES):
        heard.take(chunk)
        if heard.read >= READ_BYTES_AT_MOST:
            heard.more = not reply.content.at_eof()
            reply.close()
            return


def _headers(http: Http, web: Web) -> list[tuple[str, str]]:
    ours = {
        "Host": web.authority,
        "User-Agent": "Consul Health Check",
        "Accept": "text/plain, text/*, */*",
    }
    if web.login:
        ours["Authorization"] = "Basic " + base64.b64encode(":".join(web.login).encode()).decode()
    theirs = [
        (name, value) for name, values in http.header.items() if name.lower() not in _OURS for value in values
    ]
    given = {name.lower() for name, _ in theirs}
    # A packed body could be a bomb, and is no text to show.
    framing = [("Accept-Encoding", "identity")]
    return [*theirs, *((name, value) for name, value in ours.items() if name.lower() not in given), *framing]


def _why(error: Exception, address: str, port: int) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"x509: {_line(error.certificate_error)}"
        case aiohttp.ClientSSLError():
            return f"tls: {_line(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return dial(address, port, why(error.os_error))
        case aiohttp.ServerDisconnectedError():
            return "EOF"
        case OSError() if error.errno == errno.ECONNRESET:
            return f"read tcp {address}:{port}: read: connection reset by peer"
        case aiohttp.ClientResponseError():
            return f"net/http: HTTP/1.x transport connection broken: {_line(error.message)}"
        case _:
            return f"no usable answer: {_line(error) or type(error).__name__}"


def _line(text: object) -> str:
    return " ".join(str(text).split())[:200]
