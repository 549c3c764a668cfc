"""Flap damping: a check that falls again and again is believed better only after a calm time. Pure.

Getting worse is shown at once, always: damping never keeps a broken instance in traffic. Getting better is shown
at once too, unless the check fell `falls` times within `within_s`: then it must be better for `steady_s` without a
break. So one restart costs nothing, and a check that flips each second stays down instead of moving traffic to
and fro: between passing and critical at most four changes in any `steady_s`, and none at all while it goes on.
"""

from __future__ import annotations

import msgspec

from milkrun.registry.nouns import STATUSES


class Damping(msgspec.Struct, frozen=True, kw_only=True):
    """When a check counts as flapping, and how long it must be calm then."""

    falls: int = 2
    within_s: float = 300.0
    steady_s: float = 60.0

    def after(self, flaps: Flaps, shown: str, status: str, now: float) -> tuple[Flaps, str]:
        """What is remembered, and the status to show, when `shown` is on show and `status` is believed."""
        falls = tuple(at for at in flaps.falls if now - at < self.within_s)
        if _rank(status) > _rank(flaps.last or shown):
            falls = (*falls, now)[-self.falls :]
        if _rank(status) >= _rank(shown):
            return Flaps(status, falls), status
        since = now if flaps.better_since is None else flaps.better_since
        if len(falls) < self.falls or now - since >= self.steady_s:
            return Flaps(status, falls), status
        return Flaps(status, falls, since), shown


class Flaps(msgspec.Struct, frozen=True):
    """The last believed status (empty: none yet), when it fell lately, and since when it is better than shown."""

    last: str = ""
    falls: tuple[float, ...] = ()
    better_since: float | None = None


def _rank(status: str) -> int:
    return STATUSES.index(status)
