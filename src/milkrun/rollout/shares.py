"""Weights and instances of the versions while a rollout goes on. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from milkrun.model import VersionName, VersionWish, Wish


def serving(wish: Wish) -> dict[VersionName, float]:
    """The versions that have traffic, with their weights; where there is no weight at all, by their instances."""
    if wish.weights:
        return {name: weight for name, weight in wish.weights.items() if weight > 0}
    return {name: float(each.replicas) for name, each in wish.versions.items() if each.replicas}


def split(old: Mapping[VersionName, float], new: VersionName, percent: float) -> dict[VersionName, float]:
    """Weights that add up to 100: `percent` for the new version, the rest for the old ones as they had it."""
    rest, whole = 100.0 - percent, sum(old.values())
    weights = {name: round(rest * weight / whole, 4) for name, weight in old.items()}
    return weights | {new: percent}


class Fleet(msgspec.Struct, frozen=True):
    """Who runs in the middle of a rolling rollout.

    `gone` old instances were told to leave; `new` were started, of which `shifted_to` have traffic.
    """

    wish: Wish
    old: Mapping[VersionName, float]
    version: VersionName
    new: int = 0
    shifted_to: int = 0
    gone: int = 0
    ended: bool = False

    def started(self, count: int) -> Fleet:
        """With so many more new instances, which have no traffic yet."""
        return msgspec.structs.replace(self, new=self.new + count)

    def shifted(self) -> Fleet:
        """With traffic for all new instances."""
        return msgspec.structs.replace(self, shifted_to=self.new)

    def without(self, count: int, *, all_of_them: bool) -> Fleet:
        """With so many old instances fewer, or none."""
        return msgspec.structs.replace(self, gone=self.gone + count, ended=self.ended or all_of_them)

    def _left(self) -> dict[VersionName, int]:
        """How many of each old version are to run: those leave first that the file names first."""
        gone, left = self.gone, {}
        for name in self.old:
            have = self.wish.versions[name].replicas or 0
            leaves = have if self.ended else min(have, gone)
            gone -= leaves
            left[name] = have - leaves
        return left

    def versions(self) -> dict[VersionName, VersionWish]:
        """The file's wish: each instance that serves has the same part."""
        left = self._left()
        total = sum(left.values()) + self.shifted_to
        if not total:  # they all leave before a new one serves: the last of them keep what they have
            return self._unavailable(left)
        found = {
            name: msgspec.structs.replace(each, weight=0.0) if name not in self.old else each
            for name, each in self.wish.versions.items()
            if name != self.version
        }
        for name, count in left.items():
            found[name] = VersionWish(weight=round(100 * count / total, 4), replicas=count)
        found[self.version] = VersionWish(weight=round(100 * self.shifted_to / total, 4), replicas=self.new)
        return found

    def _unavailable(self, left: Mapping[VersionName, int]) -> dict[VersionName, VersionWish]:
        """Nobody is left but those that start: the traffic is theirs as soon as they can take it."""
        found = {name: VersionWish(weight=0.0, replicas=count) for name, count in left.items()}
        return found | {self.version: VersionWish(weight=100.0, replicas=self.new)}
