"""Envoy's admin interface on its UNIX socket: every exchange bounded in time and size."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp

from milkrun.errors import DataPlaneError
from milkrun.router.envoy.bootstrap import ADMIN_SOCKET

REPLY_WAIT_S = 2.0
REPLY_BYTES_AT_MOST = 256 * 1024 * 1024


class Admin:
    """Asks the Envoy whose socket is in `folder`, reached whatever the length of the folder's path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, path: str, *, wait_s: float = REPLY_WAIT_S) -> bytes:
        """What it shows at the path."""
        return await self._asked("GET", path, wait_s)

    async def post(self, path: str, *, wait_s: float = REPLY_WAIT_S) -> bytes:
        """What it answers after it has done so."""
        return await self._asked("POST", path, wait_s)

    async def _asked(self, method: str, path: str, wait_s: float) -> bytes:
        descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            connector = aiohttp.UnixConnector(f"/proc/self/fd/{descriptor}/{ADMIN_SOCKET}")
            async with (
                asyncio.timeout(wait_s),
                aiohttp.ClientSession(connector=connector, raise_for_status=True) as session,
                session.request(method, f"http://admin{path}") as reply,
            ):
                return await _read(reply)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise DataPlaneError(
                f"Envoy's admin socket does not answer ({error or 'no reply in time'})",
                remedy="see the router's log; Envoy goes on serving what it has",
            ) from error
        finally:
            os.close(descriptor)


class Shared:
    """Reads what many ask for at once only once: whoever asks gets what was read after the asking, or is read now."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._asked = 0
        self._read: dict[str, tuple[int, bytes]] = {}
        self._reading = asyncio.Lock()

    async def read(self, path: str) -> bytes:
        """What Envoy shows at the path, not older than this call."""
        self._asked += 1
        ticket = self._asked
        async with self._reading:
            as_of, body = self._read.get(path, (0, b""))
            if as_of < ticket:
                as_of = self._asked
                body = await self._admin.get(path)
                self._read[path] = as_of, body
            return body


async def _read(reply: aiohttp.ClientResponse) -> bytes:
    chunks = []
    size = 0
    async for chunk in reply.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > REPLY_BYTES_AT_MOST:
            raise DataPlaneError("Envoy's reply is over 256 MiB")
        chunks.append(chunk)
    return b"".join(chunks)
