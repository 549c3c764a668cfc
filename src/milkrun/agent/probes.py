"""One HTTP probe: a GET to the instance's own address, bounded in time and size, redirects not followed."""

from __future__ import annotations

import asyncio
import errno
from typing import Self

import aiohttp

from milkrun.agent.health import Probe
from milkrun.settings.service import HealthSettings

BODY_BYTES_AT_MOST = 4096
TIMEOUT_S_AT_LEAST = 0.05
TIMEOUT_S_AT_MOST = 60.0


class Prober:
    """Asks instances how they are. A new connection each time: an old one could outlive the listener."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "milkrun-agent"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http:
            await self._http.close()

    async def probe(self, address: str, port: int, settings: HealthSettings) -> Probe:
        """Good when a 2xx status and the start of its body came in time; else bad, with the reason."""
        if self._http is None:
            raise RuntimeError("use `async with Prober()`")
        # The slash ends the authority: behind it no path can name another host.
        if not settings.path.startswith("/"):
            return Probe(ok=False, reason=f"the health path {settings.path[:80]!r} does not start with /")
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{port}{settings.path}"
        # The order of the arguments makes NaN the shortest time.
        timeout_s = min(TIMEOUT_S_AT_MOST, max(TIMEOUT_S_AT_LEAST, settings.timeout_s))
        try:
            async with asyncio.timeout(timeout_s):
                async with self._http.get(url, allow_redirects=False) as reply:
                    await _read_start(reply)
        except TimeoutError:
            return Probe(ok=False, reason=f"no answer in {timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Probe(ok=False, reason=_why(error))
        return Probe(ok=200 <= reply.status < 300, reason=f"GET {settings.path}: {reply.status}")


async def _read_start(reply: aiohttp.ClientResponse) -> None:
    size = 0
    async for chunk in reply.content.iter_chunked(BODY_BYTES_AT_MOST):
        size += len(chunk)
        if size >= BODY_BYTES_AT_MOST:
            reply.close()
            return


def _why(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError() if error.os_error.errno == errno.ECONNREFUSED:
            return "connection refused"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case aiohttp.ClientPayloadError():
            return "the connection was closed within the answer"
        case _:
            line = " ".join(str(error).split())[:120]
            return f"no usable answer: {line or type(error).__name__}"
