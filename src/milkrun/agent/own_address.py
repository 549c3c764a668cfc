"""Where this host's instances listen: loopback only while the registry is there as well.

A registry on another host is read by routers on other hosts: an instance registered there at 127.0.0.1 would be
looked for on theirs, where somebody else's may answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

import msgspec

from milkrun.errors import MilkrunError
from milkrun.settings.environment import AgentSettings

_ANY_PORT = 9
"""Nothing is sent: the kernel only says which way it would go."""


async def here(settings: AgentSettings, registry: str) -> AgentSettings:
    """The settings with the address by which this host reaches the registry at this URL, where they say loopback and
    the registry is elsewhere. Raises MilkrunError when there is no way to it.
    """
    if not ipaddress.ip_address(settings.address).is_loopback:
        return settings
    host = urlsplit(registry).hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)
        family, kind, _, _, there = found[0]
        with socket.socket(family, kind) as way:
            way.connect(there)
            own = str(way.getsockname()[0])
    except OSError as error:
        raise MilkrunError(
            f"this host has no address by which it reaches the registry at {registry} ({error.strerror})",
            remedy="set agent.address in milkrun.toml to an address of this host",
        ) from error
    return (
        settings if ipaddress.ip_address(own).is_loopback else msgspec.structs.replace(settings, address=own)
    )
