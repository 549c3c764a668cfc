"""A load run's figures as text for a person. Pure: figures in, lines out."""

from __future__ import annotations

from typing import assert_never

from milkrun.load.figures import Connections, Figures, VersionShare

LATE_MS_WORTH_SAYING = 50.0


def lines(figures: Figures) -> list[str]:
    """The whole report, one fact a line."""
    plan = figures.plan
    elapsed = f"{figures.elapsed_s:.1f} s"
    head = f"{figures.sent:,} requests in {elapsed}, {plan.rate:g} a second, {_connections(plan.connections)}"
    found = [
        head + (", interrupted" if figures.interrupted else ""),
        f"  answered    {figures.answered:>9,}   {figures.achieved_rate:,.1f} a second",
        f"  failed      {figures.failed:>9,}",
        *(f"    {count:>9,}  {why}" for why, count in figures.failures.items()),
        f"  duplicated  {figures.duplicated:>9,}",
    ]
    if figures.in_flight:
        found.append(f"  in flight   {figures.in_flight:>9,}   neither answered nor failed when it ended")
    if figures.answered:
        latency = figures.latency
        found.append(
            f"latency from when each was due: p50 {_ms(latency.p50_ms)}, p90 {_ms(latency.p90_ms)}, "
            f"p99 {_ms(latency.p99_ms)}, max {_ms(latency.max_ms)}"
        )
    found += [_share(share) for share in figures.shares]
    if figures.late_ms > LATE_MS_WORTH_SAYING:
        found.append(
            f"this client was up to {_ms(figures.late_ms)} behind its own schedule: that is in the latency, "
            "and it is not the service's; give it a lower rate or a free processor"
        )
    return found


def live(figures: Figures) -> str:
    """How it goes, in one line."""
    return (
        f"{figures.elapsed_s:5.0f} of {figures.plan.duration_s:g} s  sent {figures.sent:,}  "
        f"answered {figures.answered:,}  failed {figures.failed:,}  duplicated {figures.duplicated:,}  "
        f"p50 {_ms(figures.latency.p50_ms)}  p99 {_ms(figures.latency.p99_ms)}"
    )


def _connections(kind: Connections) -> str:
    match kind:
        case Connections.KEEP_ALIVE:
            return "keep-alive connections"
        case Connections.ONE_SHOT:
            return "a new connection each"
        case Connections.BOTH:
            return "every second one on a new connection"
    assert_never(kind)


def _ms(value: float) -> str:
    return f"{value:,.1f} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def _instances(counts: dict[str, int]) -> str:
    return f"{len(counts)} instance{'' if len(counts) == 1 else 's'}" if counts else ""


def _share(share: VersionShare) -> str:
    line = f"{share.service:<12} {share.version:<12} {share.share:>8.2%}  {share.answered:>9,}"
    return f"{line}   {_instances(share.instances)}".rstrip()
