"""Who has to be there before an instance is started: each is asked for a connection, which is closed at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from milkrun.settings.unit import waited_for

LOOK_S = 2.0


async def missing(addresses: Iterable[str]) -> str:
    """Why not all of them (`tcp://HOST:PORT`) accept a connection now; empty when all do."""
    for address in addresses:
        host, port = waited_for(address)
        try:
            async with asyncio.timeout(LOOK_S):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return f"{address}: no answer in {LOOK_S:g} s"
        except OSError as error:
            return f"{address}: {_why(error)}"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return ""


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (error.strerror or str(error)).lower()[:120]
