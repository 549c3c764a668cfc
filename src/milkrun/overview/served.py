"""Whether a commit of one service is served by every live router. Pure.

A router whose report is gone is not live and is not waited for: its session ended. No router at all is
something to wait for, because then nobody serves anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from milkrun.model import RouterReport, SyncReport

HELD_S = 1.0
"""A router that still holds this long after gitsync published the commit means it."""


class Outcome(StrEnum):
    """How far the commit has come. All but WAITING are final."""

    WAITING = "waiting"
    SERVED = "served"
    REFUSED = "refused"
    HELD = "held"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome, who or what is waited for, and why it is refused or held."""

    outcome: Outcome
    waits_for: list[str] = []
    reason: str = ""


def published(sync: SyncReport | None, generation: int) -> bool:
    """Whether gitsync has dealt with this generation: written it, or refused a file of it."""
    return sync is not None and sync.generation >= generation


def standing(
    routers: Iterable[RouterReport],
    sync: SyncReport | None,
    *,
    file: str,
    generation: int,
    settled_s: float,
) -> Standing:
    """Where the commit with this generation stands, `settled_s` seconds after gitsync published it."""
    reports = sorted(routers, key=lambda report: report.router)
    if sync and published(sync, generation):
        for refusal in sync.refused:
            if refusal.file == file:
                place = f"{file}:{refusal.line}" if refusal.line else file
                return Standing(outcome=Outcome.REFUSED, reason=f"{place}: {refusal.reason}")
    late = [report for report in reports if report.generation < generation]
    if reports and not late:
        return Standing(outcome=Outcome.SERVED)
    held = [f"{report.router} holds: {why}" for report in late for why in report.held]
    if held and settled_s >= HELD_S:
        return Standing(outcome=Outcome.HELD, reason="; ".join(held))
    return Standing(outcome=Outcome.WAITING, waits_for=_waits_for(reports, late, sync, generation), reason="")


def _waits_for(
    reports: list[RouterReport], late: list[RouterReport], sync: SyncReport | None, generation: int
) -> list[str]:
    if sync is None:
        return ["gitsync, which does not report"]
    if not published(sync, generation):
        trouble = f" ({sync.trouble})" if sync.trouble else ""
        return [f"gitsync, which is at generation {sync.generation}{trouble}"]
    if not reports:
        return ["a router: none reports"]
    return [f"{report.router}, which serves generation {report.generation}" for report in late]
