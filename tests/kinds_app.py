"""An instance in a process of its own that writes down each id before it answers: HTTP/1.1, bodies, WebSockets.

    python -I -S kinds_app.py NAME PORT LEDGER

A line of the ledger is a kind (get, post, socket, word) and an id. Only the standard library, to start fast.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import sys
from pathlib import Path

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 1, 8


class App:
    """Who it is, and what it did."""

    def __init__(self, name: str, ledger: Path) -> None:
        self._name = name
        self._ledger = ledger.open("a", buffering=1)  # by line: a kill loses nothing that was written down

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request after another, until the caller leaves."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                method, headers = _head(await reader.readuntil(b"\r\n\r\n"))
                request = headers.get("x-request-id", "")
                if "sec-websocket-key" in headers:
                    await self._socket(request, headers["sec-websocket-key"], reader, writer)
                    break
                self._write("post" if method == "POST" else "get", request)
                await reader.readexactly(int(headers.get("content-length", "0")))
                body = json.dumps({"by": self._name, "request": request}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()

    async def _socket(
        self, request: str, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._write("socket", request)
        accept = base64.b64encode(hashlib.sha1(key.encode() + MAGIC).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        writer.write(frame(TEXT, self._name.encode()))
        while True:
            kind, said = await read_frame(reader)
            if kind == CLOSE:
                writer.write(frame(CLOSE, said))
                return await writer.drain()
            self._write("word", said.decode())
            writer.write(frame(TEXT, said))
            await writer.drain()

    def _write(self, kind: str, request: str) -> None:
        self._ledger.write(f"{kind} {request}\n")


def frame(kind: int, said: bytes, mask: bytes = b"") -> bytes:
    """A whole message of at most 125 bytes as RFC 6455 has it (5.2); a client's has a mask of four bytes."""
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(said)) if mask else said
    return bytes([0x80 | kind, (0x80 if mask else 0) | len(said)]) + mask + masked


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next message: its kind, and what it says."""
    first, second = await reader.readexactly(2)
    mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
    said = await reader.readexactly(second & 0x7F)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(said))


def _head(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first.split(" ")[0], {name.lower(): value.strip() for name, _, value in pairs}


async def main(name: str, port: str, ledger: str) -> None:
    """Serves until it is killed; the line on stdout says that it listens."""
    server = await asyncio.start_server(App(name, Path(ledger)).serve, "127.0.0.1", int(port), backlog=1024)
    print("listens", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
