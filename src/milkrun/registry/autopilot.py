"""How servers of a cluster are to be looked after, as operators say it. Pure.

It is kept and told, also through snapshots. It speaks of servers besides the one that leads: here is none, so
there is nothing that it would do.
"""

from __future__ import annotations

import msgspec

from milkrun.registry.ledger import Ledger

KIND, KEY = "autopilot", "configuration"


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Consul's settings. Nobody changed them yet when the indexes are 0."""

    cleanup_dead_servers: bool = True
    last_contact_threshold_s: float = 0.2
    max_trailing_logs: int = 250
    min_quorum: int = 0
    server_stabilization_time_s: float = 10.0
    create_index: int = 0
    modify_index: int = 0


class Autopilot:
    """The settings of now."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.configuration = Configuration()

    def put(self, new: Configuration) -> None:
        """These are the settings."""
        old, index = self.configuration, self._ledger.bump()
        create_index = old.create_index or index
        self.configuration = msgspec.structs.replace(new, create_index=create_index, modify_index=index)
        self._ledger.put(KIND, KEY, self.configuration)

    def become(self, new: Configuration) -> None:
        """These are the settings; nothing is written when they are already."""
        old = self.configuration
        same = msgspec.structs.replace(new, create_index=old.create_index, modify_index=old.modify_index)
        if same != old:
            self.put(new)
