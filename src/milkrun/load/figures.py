"""What a load run was asked for and what came of it: the object that `milkrun load --json` prints."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Connections(StrEnum):
    """How requests use TCP connections."""

    KEEP_ALIVE = "keep-alive"
    ONE_SHOT = "one-shot"
    BOTH = "both"
    """Every second request on a connection of its own."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: `rate` requests a second to `url` for `duration_s`, evenly spaced."""

    url: str
    rate: float
    duration_s: float
    connections: Connections = Connections.BOTH
    timeout_s: float = 10.0

    @property
    def arrivals(self) -> int:
        """How many requests that makes; at least one."""
        return max(1, round(self.rate * self.duration_s))


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers took, from when the request was due (not from when it could be sent).

    Only of what counts as answered. Quantiles are within 0.4 %, `max_ms` is exact; all 0 before any answer.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class VersionShare(msgspec.Struct, frozen=True, kw_only=True):
    """How many answers named this version of a service, and by which instances.

    `share` is its part (0 to 1) of all answers that named the service.
    """

    service: str
    version: str
    answered: int
    share: float
    instances: dict[str, int] = {}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run, so far or in the end. Always sent = answered + failed + in_flight.

    `sent` counts each arrival that was due, also one that the client had no room to send (it is failed).
    `answered` counts complete answers below status 400, `failed` all else, by reason in `failures`.
    `duplicated` counts answers to a request that had one already, or that name another request.
    `statuses` counts the complete answers by HTTP status. `achieved_rate` is answered / `elapsed_s`.
    `late_ms` is the longest that the client itself was behind its schedule; a large one makes the other
    figures say more about the client than about the service.
    """

    plan: Plan
    elapsed_s: float
    sent: int
    answered: int
    failed: int
    in_flight: int
    duplicated: int
    failures: dict[str, int]
    statuses: dict[int, int]
    shares: list[VersionShare]
    latency: Latency
    achieved_rate: float
    late_ms: float
    interrupted: bool = False

    @property
    def clean(self) -> bool:
        """Whether something was answered, nothing failed and nothing was answered twice."""
        return self.answered > 0 and not self.failed and not self.duplicated
