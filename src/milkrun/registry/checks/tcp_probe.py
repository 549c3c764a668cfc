"""One TCP probe: a connection to a pinned address, closed at once."""

from __future__ import annotations

import asyncio
import os

from milkrun.registry.checks.verdict import Failed, dial


async def connect(addresses: list[str], port: int, timeout_s: float) -> Failed | None:
    """None when one of the addresses takes a connection in time; else why the first one does not."""
    first: Failed | None = None
    try:
        async with asyncio.timeout(timeout_s):
            for address in addresses:
                failed = await _connect(address, port)
                if failed is None:
                    return None
                first = first or failed
    except TimeoutError:
        return first or Failed(dial(addresses[0], port, "i/o timeout"))
    return first


def why(error: OSError) -> str:
    """The system's reason, as Go says it."""
    return f"connect: {os.strerror(error.errno).lower()}" if error.errno else str(error)


async def _connect(address: str, port: int) -> Failed | None:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return Failed(dial(address, port, why(error)))
    # Nothing was written, so there is nothing to wait for.
    writer.transport.abort()
    return None
