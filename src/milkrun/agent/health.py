"""Rise and fall: when a row of probe results makes an instance healthy, or no longer. Pure.

Nothing but a good answer counts as good: no answer, no probe and no data are never success.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

import msgspec


class State(StrEnum):
    """What the probes say so far."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One probe's result, and the one line that says so to a person."""

    ok: bool
    reason: str


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    """What the probes say of one process, since when, and how many in a row said otherwise or the same.

    `known` says that the registry already lists the instance: then bad answers count even before a good one.
    """

    state: State
    since: float
    good: int = 0
    bad: int = 0
    known: bool = False
    reason: str = "not probed yet"


def fresh(now: float) -> Gauge:
    """The gauge of a process that was just started."""
    return Gauge(state=State.STARTING, since=now)


def adopted(now: float, *, rise: int) -> Gauge:
    """The gauge of a registered process found running after an agent's restart: one good answer is enough.

    Had the agent not restarted, that answer would not have changed anything either.
    """
    return Gauge(state=State.STARTING, since=now, good=max(0, rise - 1), known=True)


def judge(gauge: Gauge, probe: Probe, now: float, *, rise: int, fall: int) -> Gauge:
    """The gauge after one more probe. `rise` and `fall` below 1 count as 1: no data decides nothing."""
    good = gauge.good + 1 if probe.ok else 0
    bad = 0 if probe.ok else gauge.bad + 1
    risen, fallen = good >= max(1, rise), bad >= max(1, fall)
    match gauge.state:
        case State.STARTING:
            fallen = fallen and gauge.known
            state = State.HEALTHY if risen else State.UNHEALTHY if fallen else State.STARTING
        case State.HEALTHY:
            state = State.UNHEALTHY if fallen else State.HEALTHY
        case State.UNHEALTHY:
            state = State.HEALTHY if risen else State.UNHEALTHY
        case _:
            assert_never(gauge.state)
    since = gauge.since if state is gauge.state else now
    return msgspec.structs.replace(gauge, state=state, since=since, good=good, bad=bad, reason=probe.reason)
