"""Tells whoever follows a rollout that nobody is at it. Pure."""

from __future__ import annotations

ABSENT_S = 5.0
"""The next engine takes the lock within a second or two of the end of the one before."""
ALONE = (
    "no rollout engine acts: everything stays as it is, and goes on when one does; start one with `milkrun rollouts`"
    " (`milkrun up` does), and see `milkrun logs rollouts`"
)
AGAIN = "a rollout engine acts again"


class Absence:
    """How long no engine has acted, and whether that was said."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._said = False

    def seen(self, *, acts: bool, now: float) -> str:
        """What there is to say, empty when there is nothing new. `now` is in seconds of any clock that only rises."""
        if acts:
            said, self._said, self._since = self._said, False, None
            return AGAIN if said else ""
        if self._since is None:
            self._since = now
        if self._said or now - self._since < ABSENT_S:
            return ""
        self._said = True
        return ALONE
