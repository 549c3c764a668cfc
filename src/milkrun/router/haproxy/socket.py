"""HAProxy's runtime socket: one command line a connection, every exchange bounded in time and size.

Protocol: HAProxy's management guide, chapter 9 (Statistics and monitoring, Unix socket commands).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from milkrun.errors import DataPlaneError
from milkrun.router.socket_path import socket_path

REPLY_WAIT_S = 2.0
RELOAD_WAIT_S = 30.0
LINE_BYTES = 8000
REPLY_BYTES_AT_MOST = 64 * 1024 * 1024


class RuntimeSocket:
    """A socket file in `folder`, reached whatever the length of the folder's path."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    async def ask(self, command: str, *, wait_s: float = REPLY_WAIT_S, half_close: bool = False) -> str:
        """The reply to one command line. `half_close` is what the master's socket needs to end the reply."""
        if "\n" in command:
            raise DataPlaneError("a runtime command has one line")
        try:
            async with asyncio.timeout(wait_s):
                loop = asyncio.get_running_loop()
                with socket.socket(socket.AF_UNIX) as connection:  # streams take three turns of the loop more
                    connection.setblocking(False)
                    with self.path() as path:
                        await loop.sock_connect(connection, path)
                    await loop.sock_sendall(connection, command.encode("ascii") + b"\n")
                    if half_close:
                        connection.shutdown(socket.SHUT_WR)
                    return await _read(connection)
        except (OSError, TimeoutError) as error:
            raise DataPlaneError(
                f"HAProxy's socket {self._name} does not answer ({error or 'no reply in time'})",
                remedy="see the router's log; HAProxy goes on serving what it has",
            ) from error

    def path(self) -> AbstractContextManager[str]:
        """The socket's path, short enough for a UNIX socket (107 bytes) wherever the folder is."""
        return socket_path(self._folder, self._name)

    async def batch(self, commands: Iterable[str]) -> str:
        """The replies to many commands, sent as few lines; what came of them must be read back, not believed."""
        replies = []
        line = ""
        for command in commands:
            if line and len(line) + len(command) > LINE_BYTES:
                replies.append(await self.ask(line))
                line = ""
            line = f"{line};{command}" if line else command
        if line:
            replies.append(await self.ask(line))
        return "\n".join(replies)


async def _read(connection: socket.socket) -> str:
    loop = asyncio.get_running_loop()
    chunks = []
    size = 0
    while chunk := await loop.sock_recv(connection, 1 << 16):
        size += len(chunk)
        if size > REPLY_BYTES_AT_MOST:
            raise DataPlaneError("HAProxy's reply is over 64 MiB")
        chunks.append(chunk)
    return b"".join(chunks).decode("utf-8", errors="replace")
