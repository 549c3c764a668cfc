"""What is new since the last look, and when a window begins. Pure."""

from __future__ import annotations

import msgspec

from milkrun.rollout.analysis.verdict import Counts, Evidence, Seen

_NONE = Counts()


def counted(canary: Seen, stable: Seen) -> Counts:
    """The counts, with never more failures than requests: two counters are not read in the same moment."""
    return Counts(
        canary=max(0, canary.requests),
        canary_failures=min(max(0, canary.failures), max(0, canary.requests)),
        stable=max(0, stable.requests),
        stable_failures=min(max(0, stable.failures), max(0, stable.requests)),
    )


def taken_up(evidence: Evidence, now: Counts, name: str) -> tuple[Evidence, Counts]:
    """The evidence that has counted this look, and what came since the last one: no request is evidence twice.

    A window that has a name goes on while the name is the same: a router whose report is missing makes the sums fall
    for a while, and what is below the highest ones was counted already. A new name over counts that have not fallen is
    taken for a window that the routers did not begin anew, and what is in it so far is left out. Without names,
    whatever falls is a new window.
    """
    before = evidence.counted
    fell = now.canary < before.canary or now.stable < before.stable
    if evidence.window and name == evidence.name and not (fell and not name):
        if fell:
            return evidence, _NONE
        now = _highest(before, now)
        return msgspec.structs.replace(evidence, counted=now), _less(now, before)
    goes_on = bool(name) and before != _NONE and not fell
    evidence = msgspec.structs.replace(
        evidence,
        window=evidence.window + 1,
        name=name,
        before=added(evidence.before, _less(before, evidence.base)),
        base=now if goes_on else _NONE,
        counted=now,
        latency_tested=0,
    )
    return evidence, _NONE if goes_on else now


def begins(evidence: Evidence, new: Counts) -> bool:
    """Whether `new` is the first that was counted of this window."""
    return (
        new != _NONE and in_window(evidence).canary == new.canary and in_window(evidence).stable == new.stable
    )


def in_window(evidence: Evidence) -> Counts:
    """What was counted of this window."""
    return _less(evidence.counted, evidence.base)


def added(one: Counts, other: Counts) -> Counts:
    """Both together."""
    return Counts(
        canary=one.canary + other.canary,
        canary_failures=one.canary_failures + other.canary_failures,
        stable=one.stable + other.stable,
        stable_failures=one.stable_failures + other.stable_failures,
    )


def _highest(before: Counts, now: Counts) -> Counts:
    """The counts, of which failures never fall."""
    return msgspec.structs.replace(
        now,
        canary_failures=max(before.canary_failures, now.canary_failures),
        stable_failures=max(before.stable_failures, now.stable_failures),
    )


def _less(now: Counts, before: Counts) -> Counts:
    canary, stable = now.canary - before.canary, now.stable - before.stable
    return Counts(
        canary=canary,
        canary_failures=min(now.canary_failures - before.canary_failures, canary),
        stable=stable,
        stable_failures=min(now.stable_failures - before.stable_failures, stable),
    )
