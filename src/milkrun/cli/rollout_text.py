"""Rollouts as text: the plan, the live tree, the verdict with its numbers. Pure."""

from __future__ import annotations

import difflib

from milkrun.cli.table import percent, table
from milkrun.model import ServiceName, Wish
from milkrun.rollout.plan import Plan
from milkrun.rollout.receipt import Receipt, lines
from milkrun.rollout.state import ENDED, Phase
from milkrun.rollout.steps import Move
from milkrun.rollout.view import RolloutView
from milkrun.settings import deploy

_SIGNS = {"done": "✓", "now": "▶", "next": "·", "skipped": "-"}


def plan_lines(plan: Plan) -> list[str]:
    """The steps, each with what it changes in git, and the digest to hold `deploy` to it."""
    over = ", ".join(plan.old) or "nobody"
    found = [f"{plan.service} {plan.version} over {over}, {plan.strategy}: {len(plan.steps)} steps", ""]
    before = plan.base
    for number, step in enumerate(plan.steps, 1):
        found.append(f"{number:3}  {step.name}")
        if isinstance(step, Move):
            after = deploy.written(Wish(versions=step.versions, maintenance=plan.wish.maintenance)).decode()
            found += [f"       {line}" for line in _changes(before, after)]
            before = after
    return [
        *found,
        "",
        f"digest {plan.digest}",
        f"next: milkrun deploy {plan.service} {plan.version} --digest {plan.digest}",
    ]


def _changes(before: str, after: str) -> list[str]:
    """What a step changes, a line a version."""
    lines = difflib.unified_diff(_flat(before), _flat(after), n=0, lineterm="")
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("---", "+++")]
    return changed or ["(no change)"]


def _flat(text: str) -> list[str]:
    wish = deploy.parse(text.encode(), "deploy")
    return [
        f"{name}: "
        + ", ".join(
            f"{word} {value:g}"
            for word, value in (("weight", each.weight), ("replicas", each.replicas))
            if value is not None
        )
        for name, each in wish.versions.items()
    ]


def tree_lines(view: RolloutView) -> list[str]:
    """The rollout as it stands, to be drawn again and again."""
    found = [_headline(view), ""]
    for step in view.steps:
        verdict = f"  {step.verdict}" if step.verdict else ""
        found.append(f"  {_SIGNS[step.state]} {step.name}{verdict}")
        if step.state == "now":
            found += [f"      waits for {wait}" for wait in view.waits_for]
    found += ["", *_versions(view)]
    if view.paused:
        found += ["", f"held: {view.paused}", f"next: {next_command(view)}"]
    if view.reason:
        found += ["", f"taken back: {view.reason}"]
    if view.phase is Phase.NEEDS_PERSON:
        found += ["", f"a person is needed; next: {next_command(view)}"]
    if view.queue:
        found += ["", *_queue(view)]
    return found


def _queue(view: RolloutView) -> list[str]:
    return [
        f"waits for its turn: {view.service} {one.version}, by {one.by} ({one.rollout})"
        + (f": {one.reason}" if one.reason else "")
        for one in view.queue
    ] + [f"next: milkrun rollout abort {view.service} --queued {view.queue[0].version} calls one off"]


def _headline(view: RolloutView) -> str:
    left = "" if view.left_s is None or not view.left_s else f", at least {view.left_s:.0f} s to go"
    return (
        f"{view.service} {view.version} {view.phase.value} ({view.strategy}, {view.rollout}): "
        f"step {view.step} of {len(view.steps)}, {view.receipt.ended - view.started:.0f} s{left}"
    )


def _versions(view: RolloutView) -> list[str]:
    return table(
        ["version", "", ">wanted", ">served", ">observed", ">requests", ">failed", "instances"],
        [
            [
                one.version,
                one.role,
                percent(one.wanted),
                percent(one.served),
                percent(one.observed),
                str(one.requests),
                str(one.failures),
                _counted(one.instances),
            ]
            for one in view.versions
        ],
    )


def _counted(states: list[str]) -> str:
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def next_command(view: RolloutView) -> str:
    """What a person may say to it as it stands."""
    service = view.service
    if view.phase is Phase.NEEDS_PERSON:
        return f"milkrun rollout why {service}; then milkrun rollout retry {service}, or abort --force"
    match view.cause:
        case "foreign-edit":
            return f"git log -1 -p deploy/{service}.json; then milkrun rollout resume|abort {service}"
        case "no-verdict":
            return f"milkrun rollout why {service}; then milkrun rollout promote|resume|abort {service}"
        case "failed":
            return f"milkrun rollout why {service}; then milkrun rollout abort|retry {service}"
        case "asked":
            return f"milkrun rollout resume {service}"
    now = next((step.kind for step in view.steps if step.state == "now"), "")
    if now == "approve" and view.phase is Phase.RUNNING:
        return f"milkrun rollout approve {service}, or milkrun rollout reject {service}"
    return f"milkrun rollout status {service}"


def why_lines(view: RolloutView) -> list[str]:
    """The verdicts with their numbers, the last one first."""
    found = [_headline(view)]
    if view.paused:
        found.append(f"  held: {view.paused}")
    if view.reason:
        found.append(f"  taken back: {view.reason}")
    for said in reversed(view.verdicts):
        found += ["", f"{said.step.partition(' ')[2]}: {said.verdict.outcome.value}"]
        found += [f"  {finding.outcome.value:12}  {finding.said}" for finding in said.verdict.findings]
        if said.verdict.needs:
            found.append(f"  {'':12}  about {said.verdict.needs} more requests to the new version are needed")
    if not view.verdicts:
        found.append(f"  {_unjudged(view)}")
    return found


def _unjudged(view: RolloutView) -> str:
    if view.reason or view.paused:
        return "the versions were not compared: it did not come so far"
    ended = view.phase in ENDED
    return "the versions were not compared: no step asked for it" if ended else "nothing was judged yet"


def history_lines(service: ServiceName, history: list[Receipt]) -> list[str]:
    """The receipts, the newest first."""
    if not history:
        return [f"{service} has had no rollout yet"]
    found: list[str] = []
    for receipt in reversed(history):
        found += [f"{receipt.rollout}: {receipt.outcome}", *(f"  {line}" for line in lines(receipt))]
        if receipt.commits:
            found.append(f"  {len(receipt.commits)} commits, the last one {receipt.commits[-1][:10]}")
    return found


def receipt_lines(receipt: Receipt) -> list[str]:
    """How it ended."""
    return [
        f"{receipt.service} {receipt.version}: {receipt.outcome}",
        *(f"  {line}" for line in lines(receipt)),
    ]
