"""A host becomes the addresses that the probe connects to: asked once, judged, and used as they were judged.

Asking again for the connection would let a name answer the judge with one address and the socket with another.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from milkrun.registry.checks.reach import Reach, plain
from milkrun.registry.checks.target import Target
from milkrun.registry.checks.verdict import Failed

ADDRESSES_AT_MOST = 4

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def system_names(host: str, port: int) -> list[str]:
    """The addresses that this machine's resolver has for the name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def pinned(target: Target, *, own: str, reach: Reach, resolve: Resolve) -> list[str] | Failed:
    """The addresses that a check of a service at `own` may connect to for this target, at least one."""
    literal = target.literal
    try:
        found = (
            [literal] if literal else [ip_address(each) for each in await resolve(target.host, target.port)]
        )
    except (OSError, ValueError):
        return Failed(f"dial tcp: lookup {target.host}: no such host")
    if not found:
        return Failed(f"dial tcp: lookup {target.host}: no such host")
    judged = {str(plain(each)): reach.refusal(each, target.port, own) for each in found}
    permitted = [address for address, refusal in judged.items() if not refusal]
    return permitted[:ADDRESSES_AT_MOST] or Failed(next(iter(judged.values())))
