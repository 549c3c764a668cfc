"""How long a part that died waits before it starts again. Pure."""

from __future__ import annotations

import msgspec

FIRST_S = 0.1
LAST_S = 10.0
STEADY_S = 30.0


class Backoff(msgspec.Struct, frozen=True):
    """The deaths of a part since it last ran for STEADY_S seconds."""

    deaths: int = 0

    def died(self, ran_s: float) -> Backoff:
        """The count after one more death, after `ran_s` seconds of life."""
        return Backoff(1 if ran_s >= STEADY_S else self.deaths + 1)

    def pause_s(self, jitter: float) -> float:
        """The seconds to wait: 0.1 doubling to 10, of which `jitter` in [0, 1) spreads the upper half."""
        ceiling = min(LAST_S, FIRST_S * 2.0 ** min(max(self.deaths - 1, 0), 20))
        return ceiling * (0.5 + jitter / 2)
