"""How much of the registry one client, and all of them, may hold, and for how long. Pure."""

from __future__ import annotations

from typing import Self

import msgspec

from milkrun.registry.refusal import Refused

KEY_CHARACTERS_AT_MOST = 8_192
OWN_FILES_AT_LEAST = 256
"""Files that no client gets: the disk's, the checks' and the DNS server's connections."""


class Limits(msgspec.Struct, frozen=True):
    """How long each part of a conversation may take, and how many connections and parked queries there may be."""

    head_s: float = 5.0
    message_s: float = 60.0
    idle_s: float = 900.0
    """Longer than any blocking query: a kept connection is not closed under its next request."""
    stalled_s: float = 30.0
    """A client that reads nothing of its replies for so long is cut off."""
    linger_s: float = 2.0
    """A refused client that is still sending is heard for so long, so that it can read the refusal."""
    connections: int = 49_152
    per_address: int = 8_192
    watchers: int = 20_000
    watchers_per_address: int = 6_144

    @classmethod
    def by_files(cls, files: int) -> Self:
        """The limits of a process that may open so many files: nobody gets all, and no watcher the last quarter.

        An address whose watchers all wait can so still write, and the others still connect.
        """
        most = cls()
        connections = files - min(files // 2, max(OWN_FILES_AT_LEAST, files // 4))
        per_address = min(most.per_address, connections * 3 // 4)
        return cls(
            connections=min(most.connections, connections),
            per_address=per_address,
            watchers=min(most.watchers, connections * 3 // 4),
            watchers_per_address=min(most.watchers_per_address, per_address * 3 // 4),
        )


def check_key(key: str) -> str:
    """The key, when it is not too long to be asked for again: it has to fit into a request's head."""
    if len(key) > KEY_CHARACTERS_AT_MOST:
        raise Refused(413, f"Key too long: {len(key)} characters, at most {KEY_CHARACTERS_AT_MOST}")
    return key
