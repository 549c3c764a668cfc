"""What stays of a rollout: its receipt, in the registry's history and in the message of its last commit. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from milkrun.model import CommitId, ServiceName, VersionName
from milkrun.rollout.plan import Kind
from milkrun.rollout.state import Counted, Intent, State
from milkrun.rollout.steps import Move, Record

EPOCH = "Milkrun-Epoch"
"""The trailer that says which engine made a commit."""
ROLLOUT = "Milkrun-Rollout"
"""The trailer that says which rollout a commit is of."""
KEPT = 30
"""So many receipts of a service are kept in the registry. Git keeps all."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, as it went. Times are seconds since 1970.

    `old` are the versions before, the one with the most traffic first. `outcome` is the phase it ended in, or
    `refused` when it never began. `slowest_s` is the longest time from a commit to the moment when every live router
    served it. `hurt` is the share of all requests meanwhile that failed in the new version. `migrated` are the phases
    of migrations that were gone through. `commits` are those that it made itself. `weights` are those of `old` before.
    `remarks` are what a person should still know.
    """

    rollout: str
    service: ServiceName
    version: VersionName
    old: list[VersionName]
    strategy: Kind
    by: str
    outcome: str
    reason: str
    started: float
    ended: float
    requests: dict[VersionName, Counted] = {}
    hurt: float = 0.0
    slowest_s: float = 0.0
    verdicts: list[str] = []
    commits: list[CommitId] = []
    migrated: list[str] = []
    weights: dict[VersionName, float] = {}
    remarks: list[str] = []


def receipt(state: State, now: float) -> Receipt:
    """The receipt of a rollout as it stands."""
    plan = state.plan
    total = state.ledger.total
    whole = sum(each.requests for each in total.values())
    new = total.get(plan.version, Counted())
    return Receipt(
        rollout=plan.id,
        service=plan.service,
        version=plan.version,
        old=sorted(plan.old, key=lambda name: (-plan.old[name], name)),
        strategy=plan.strategy,
        by=state.by,
        outcome=state.phase.value,
        reason=state.reason,
        started=state.started,
        ended=state.ended or now,
        requests={
            name: count
            for name, count in sorted(total.items())
            if count.requests or name in (*plan.old, plan.version)
        },
        hurt=new.failures / whole if whole else 0.0,
        slowest_s=round(state.slowest_s, 3),
        verdicts=[f"{said.step.partition(' ')[2]}: {said.verdict.outcome.value}" for said in state.verdicts],
        commits=[commit for commit in state.commits if commit not in state.found],
        migrated=state.migrated,
        weights=dict(sorted(plan.old.items())),
        remarks=state.remarks,
    )


def refused(service: ServiceName, intent: Intent, reason: str, now: float) -> Receipt:
    """The receipt of a rollout that never began."""
    return Receipt(
        rollout=intent.rollout,
        service=service,
        version=VersionName(intent.version),
        old=[],
        strategy=intent.strategy or "canary",
        by=intent.by,
        outcome="refused",
        reason=reason,
        started=now,
        ended=now,
    )


def served(history: Iterable[Receipt]) -> set[VersionName]:
    """The versions that are known to have served: rolled out to the end, or there when another one came."""
    found: set[VersionName] = set()
    for receipt in history:
        found |= {*receipt.old} | ({receipt.version} if receipt.outcome == "done" else set())
    return found


def lines(receipt: Receipt) -> list[str]:
    """The receipt for people."""
    over, took_s = ", ".join(receipt.old) or "nobody", receipt.ended - receipt.started
    what = "contract" if receipt.strategy == "contract" else f"over {over}, {receipt.strategy}"
    found = [f"{receipt.service} {receipt.version} {what}, by {receipt.by}, in {took_s:.1f} s"]
    if receipt.strategy != "contract":  # no traffic is shifted by it
        found += [
            f"{version}: {count.requests} requests, {count.failures} failed"
            for version, count in receipt.requests.items()
        ]
    if receipt.hurt:
        found.append(f"{100 * receipt.hurt:.3f} % of all requests failed in {receipt.version}")
    if receipt.slowest_s:
        found.append(f"slowest switch {receipt.slowest_s:.2f} s")
    if receipt.reason:
        never = receipt.outcome == "refused"
        found.append(receipt.reason if never else f"taken back: {receipt.reason}")
    found += receipt.migrated
    found += receipt.remarks
    found += [f"verdict of {verdict}" for verdict in receipt.verdicts]
    return found


def message(state: State, title: str, now: float) -> str:
    """The message of a step's commit: what, why, and trailers to find it by. The last one has the receipt."""
    plan = state.plan
    subject = f"{plan.service} {plan.version}: {title}"
    body: list[str] = []
    if state.reason:
        body.append(f"taken back: {state.reason}")
    if not any(isinstance(step, Move | Record) for step in state.steps[state.index + 1 :]):
        body += lines(receipt(state, now))
    verdict = state.verdicts[-1].verdict.outcome.value if state.verdicts else "none"
    trailers = [
        f"{ROLLOUT}: {plan.id}",
        f"Milkrun-Step: {state.index + 1}/{len(state.steps)} {title}",
        f"{EPOCH}: {state.epoch}",
        f"Milkrun-Verdict: {verdict}",
        *dict.fromkeys(f"Milkrun-Migrated: {each.partition(':')[0]}" for each in state.migrated),
    ]
    text = "\n".join(" ".join(line.split()) for line in body)
    return "\n\n".join(part for part in (subject, text, "\n".join(trailers)) if part) + "\n"
