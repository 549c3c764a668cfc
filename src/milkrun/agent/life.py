"""The life of one supervised unit: which phase follows from what happened. Pure.

    starting -> healthy <-> unhealthy            by the probes
    any of these, when the process ends -> backoff -> starting
    any, when it is to stop -> draining -> stopped

Draining is never called off: who wants the instance again gets a new one.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from milkrun.agent.health import Gauge, Probe, State, judge

FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 30.0
AWAITED_LOOK_S = 0.5
STEADY_S = 60.0
"""So long healthy, and the next crash is a first one again."""


class Phase(StrEnum):
    """As in `UnitReport.state`."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPED = "stopped"


class Started(msgspec.Struct, frozen=True):
    """A process runs; `gauge` is what is known of its health."""

    gauge: Gauge


class Probed(msgspec.Struct, frozen=True):
    """The running process was probed."""

    probe: Probe
    rise: int
    fall: int


class Failed(msgspec.Struct, frozen=True):
    """The process ended by itself, or could not be started."""

    reason: str
    remedy: str = ""


class Waiting(msgspec.Struct, frozen=True):
    """It was not started yet, because somebody whom it needs is not there; that is no failure of its own."""

    reason: str


class StopAsked(msgspec.Struct, frozen=True):
    """The unit is to drain and stop."""

    reason: str


class Ended(msgspec.Struct, frozen=True):
    """The drain is over and nothing of the unit is left."""


Event = Started | Probed | Failed | Waiting | StopAsked | Ended


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """Where a unit stands. `reason` and `remedy` are for people.

    `restart_at` holds in backoff, on the clock of `now`.
    """

    phase: Phase = Phase.BACKOFF
    gauge: Gauge | None = None
    reason: str = ""
    remedy: str = ""
    starts: int = 0
    failures: int = 0
    restart_at: float = 0.0


def step(life: Life, event: Event, *, now: float, jitter: float) -> Life:
    """The life after the event. `jitter` is uniform in [0, 1)."""
    replace = msgspec.structs.replace
    match life.phase, event:
        case (Phase.STOPPED, _):
            return life
        case (Phase.DRAINING, Ended()):
            return replace(life, phase=Phase.STOPPED)
        case (Phase.DRAINING, _) | (_, Ended()):
            return life
        case (_, StopAsked(reason)):
            return replace(life, phase=Phase.DRAINING, reason=reason)
        case (_, Started(gauge)):
            return replace(
                life, phase=Phase.STARTING, gauge=gauge, reason="", remedy="", starts=life.starts + 1
            )
        case (Phase.BACKOFF, Waiting(reason)):
            restart_at = now + AWAITED_LOOK_S * (0.5 + jitter / 2)
            return replace(life, reason=reason, remedy="", restart_at=restart_at)
        case (_, Failed() as failed):
            return _failed(life, failed, now, jitter)
        case (_, Probed(probe, rise, fall)) if life.gauge is not None:
            gauge = judge(life.gauge, probe, now, rise=rise, fall=fall)
            reason = "" if probe.ok and gauge.state is State.HEALTHY else probe.reason
            return replace(life, phase=Phase(gauge.state.value), gauge=gauge, reason=reason)
        case _:
            return life  # a probe's answer that came after its process had ended


def backoff_s(failures: int, jitter: float) -> float:
    """How long to wait before the start after this many failures in a row (from 1)."""
    ceiling = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + jitter / 2)


def _failed(life: Life, failed: Failed, now: float, jitter: float) -> Life:
    gauge = life.gauge
    steady = gauge is not None and gauge.state is State.HEALTHY and now - gauge.since >= STEADY_S
    failures = 1 if steady else life.failures + 1
    return msgspec.structs.replace(
        life,
        phase=Phase.BACKOFF,
        gauge=None,
        reason=failed.reason,
        remedy=failed.remedy,
        failures=failures,
        restart_at=now + backoff_s(failures, jitter),
    )
