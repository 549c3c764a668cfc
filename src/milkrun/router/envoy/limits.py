"""The limits that Envoy is told: how long, how often, how many. Pure."""

from __future__ import annotations

IDLE_S = 4.0
"""An idle connection to an instance is closed before the usual servers close it, or a POST could meet a closed one."""
TUNNEL_S = 3600.0
"""For so long nothing may move in what became another protocol, and in TCP."""
TRIES = 10
COPIES_AT_MOST = 100
"""Under way at once, in each of Envoy's threads."""
COPY_WAIT_S = 5
"""A copy that takes longer is cut."""
