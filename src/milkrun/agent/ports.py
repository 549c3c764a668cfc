"""Which port an instance may listen on: the kernel is asked, by binding it for a moment."""

from __future__ import annotations

import errno
import socket
from collections.abc import Set as AbstractSet

from milkrun.errors import MilkrunError


def free(address: str, port: int) -> bool:
    """Whether a program could listen there now. Raises MilkrunError when the address is not this host's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        # As servers do: an ended connection in TIME_WAIT does not take the port.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise MilkrunError(
                f"nothing can listen on {address} here ({error.strerror})",
                remedy="set agent.address in milkrun.toml to an address of this host",
            ) from error
    return True


def choose(address: str, first: int, last: int, taken: AbstractSet[int]) -> int:
    """The lowest port in the range that is free and not in `taken`; MilkrunError when there is none."""
    for port in range(first, last + 1):
        if port not in taken and free(address, port):
            return port
    raise MilkrunError(
        f"no port from {first} to {last} is free on {address}",
        remedy="widen agent.ports in milkrun.toml, or ask for fewer replicas",
    )
