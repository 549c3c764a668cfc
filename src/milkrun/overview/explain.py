"""Why an instance does, or does not, get traffic: the chain of facts from git to each router. Pure."""

from __future__ import annotations

import difflib

import msgspec

from milkrun.errors import NotFound
from milkrun.model import (
    SHARE_SLOTS,
    Health,
    Instance,
    InstanceId,
    RouterReport,
    ServiceName,
    UnitReport,
    VersionName,
    Wish,
)
from milkrun.overview.facts import Facts, Slot
from milkrun.overview.view import wanted_shares


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One fact and where it comes from: git, slot, agent, registry, or a router's name."""

    source: str
    fact: str


class InstanceChain(msgspec.Struct, frozen=True, kw_only=True):
    """The chain of one instance and the sentence that follows from it. `traffic` says whether it gets any."""

    instance: InstanceId
    version: VersionName
    traffic: bool
    chain: list[Link]
    verdict: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `milkrun explain --json`. `notes` speak of the whole service."""

    schema_version: int = 1
    service: ServiceName
    commit: str | None
    generation: int
    instances: list[InstanceChain]
    notes: list[str]


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One instance and all that is known of it."""

    id: InstanceId
    service: ServiceName
    version: VersionName
    wish: Wish
    routers: list[RouterReport]
    slot: Slot | None
    siblings: list[InstanceId] = []
    instance: Instance | None = None
    unit: UnitReport | None = None
    host: str = ""

    def state(self, report: RouterReport) -> str:
        """What the router last did with it; empty when it does not list it."""
        seen = report.instances.get(self.id)
        return seen.state if seen else ""

    def share(self, report: RouterReport) -> int:
        """The slots that the router gives its version."""
        traffic = report.versions.get(self.version)
        return traffic.share if traffic else 0


def explain(facts: Facts, name: str) -> Explanation:
    """The explanation of the service or the instance called `name`. Raises NotFound with the near names."""
    services = set(facts.instances) | set(facts.wishes) | set(facts.settings)
    owners = {one.id: service for service, group in facts.instances.items() for one in group}
    owners |= {unit.instance: unit.service for agent in facts.agents for unit in agent.units}
    if name in services:
        service = ServiceName(name)
        ids = sorted(one for one, owner in owners.items() if owner == service)
    elif name in owners:
        service, ids = owners[InstanceId(name)], [InstanceId(name)]
    else:
        raise NotFound(
            f"the registry knows no service or instance {name!r}", remedy=_near(name, [*services, *owners])
        )
    wish = facts.wishes.get(service, Wish())
    routers = sorted((r for r in facts.routers if r.service == service), key=lambda report: report.router)
    return Explanation(
        service=service,
        commit=wish.mark.commit if wish.mark else None,
        generation=wish.mark.generation if wish.mark else 0,
        instances=[_chain(_case(facts, service, one, wish, routers)) for one in ids],
        notes=_notes(service, wish, routers, facts),
    )


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are: {', '.join(sorted(set(known)))}" if known else "`milkrun status` shows what there is"


def _case(
    facts: Facts, service: ServiceName, one: InstanceId, wish: Wish, routers: list[RouterReport]
) -> _Case:
    instance = next((entry for entry in facts.instances.get(service, []) if entry.id == one), None)
    host, unit = next(
        ((agent.host, unit) for agent in facts.agents for unit in agent.units if unit.instance == one),
        ("", None),
    )
    version = instance.version if instance else unit.version if unit else VersionName("")
    siblings = [e.id for e in facts.instances.get(service, []) if e.version == version and e.healthy]
    slot = next((slot for slot in facts.slots if slot.holder.instance == one), None)
    return _Case(
        id=one,
        service=service,
        version=version,
        wish=wish,
        routers=routers,
        slot=slot,
        siblings=siblings,
        instance=instance,
        unit=unit,
        host=host,
    )


def _chain(case: _Case) -> InstanceChain:
    serving = [report for report in case.routers if case.state(report) == "serving" and case.share(report)]
    return InstanceChain(
        instance=case.id,
        version=case.version,
        traffic=bool(serving),
        chain=[
            Link(source="git", fact=_git(case)),
            Link(source="slot", fact=_slot(case)),
            Link(source="agent", fact=_agent(case)),
            Link(source="registry", fact=_registry(case)),
            *(Link(source=report.router, fact=_router(case, report)) for report in case.routers),
        ],
        verdict=_verdict(case, serving),
    )


def _git(case: _Case) -> str:
    commit = f"commit {case.wish.mark.commit[:7]}" if case.wish.mark else "no commit"
    asked = case.wish.versions.get(case.version)
    if asked is None and case.wish.mark is None:
        return f"no commit speaks of {case.service}"
    if asked is None:
        return f"{commit} asks for nothing of version {case.version}"
    share = wanted_shares(case.wish).get(case.version)
    weight = "no weight" if asked.weight is None else f"weight {asked.weight:g}"
    part = "" if share is None else f" ({100 * share:.2f} %)"
    replicas = "" if asked.replicas is None else f" and {asked.replicas} running"
    return f"{commit} asks for version {case.version} with {weight}{part}{replicas}"


def _slot(case: _Case) -> str:
    if case.slot is None:
        return "holds none: started by hand, or on its way out"
    return f"{case.slot.service}/{case.slot.version}/{case.slot.number}, held by {case.slot.holder.host}"


def _agent(case: _Case) -> str:
    if case.unit is None:
        return "no agent runs it"
    again = f", restarted {case.unit.restarts} times" if case.unit.restarts else ""
    why = f": {case.unit.reason}" if case.unit.reason else ""
    pid = f", pid {case.unit.pid}" if case.unit.pid else ""
    return f"{case.unit.state} on {case.host}{pid}{again}{why}"


def _registry(case: _Case) -> str:
    if case.instance is None:
        return "not in the catalog: an instance is registered once it is healthy"
    why = f": {case.instance.reason.strip()}" if case.instance.reason.strip() else ""
    return f"{case.instance.health.value} at {case.instance.address}:{case.instance.port}{why}"


def _router(case: _Case, report: RouterReport) -> str:
    state = case.state(report)
    if not state:
        return "does not know it"
    share = f"{100 * case.share(report) / SHARE_SLOTS:.2f} %"
    among = f" among {len(case.siblings)} instances" if len(case.siblings) > 1 else ""
    held = "; held: " + "; ".join(report.held) if report.held else ""
    return f"{state}; its version gets {share}{among}{held}"


def _verdict(case: _Case, serving: list[RouterReport]) -> str:
    if serving:
        return f"It gets traffic from {', '.join(report.router for report in serving)}."
    return f"It gets no traffic: {_why_not(case)}."


def _why_not(case: _Case) -> str:
    if case.unit and case.unit.state == "backoff":
        more = case.unit.remedy or f"`milkrun logs {case.id}` shows its last words"
        return f"it does not stay up ({case.unit.reason}); {more}"
    if case.unit and case.unit.state == "draining":
        return f"it is being drained ({case.unit.reason})"
    if case.instance is None:
        why = f" ({case.unit.reason})" if case.unit and case.unit.reason else ""
        return f"it is not healthy yet{why}" if case.unit else "nobody runs it"
    if case.instance.health is Health.MAINTENANCE:
        return f"it is being drained ({case.instance.reason or 'maintenance'})"
    if not case.routers:
        return f"no router reports for {case.instance.service}"
    asked = case.wish.versions.get(case.version)
    if case.wish.weights and (asked is None or asked.weight is None):
        return f"version {case.version} has no weight in git, others have"
    if asked and asked.weight == 0:
        return f"version {case.version} has weight 0 in git"
    if not case.instance.healthy:
        return (
            f"the registry says {case.instance.health.value} ({case.instance.reason.strip() or 'no reason'})"
        )
    held = [why for report in case.routers for why in report.held]
    if held:
        return f"the router holds ({held[0]})"
    return "the routers have not taken it up yet"


def _notes(service: ServiceName, wish: Wish, routers: list[RouterReport], facts: Facts) -> list[str]:
    notes = []
    if wish.mark is None:
        notes.append(f"git asks for nothing of {service}: all its healthy instances get the same")
    if wish.maintenance:
        notes.append(f"git says that {service} is in maintenance")
    if not routers:
        notes.append(f"no router reports for {service}: nobody is known to send it requests")
    for report in routers:
        notes.extend(f"{report.router} holds: {why}" for why in report.held)
        notes.extend(f"{report.router}: {why}" for why in [*report.alarms, *report.former])
        if wish.mark and report.generation < wish.mark.generation and not report.held:
            notes.append(
                f"{report.router} serves generation {report.generation}, git is at {wish.mark.generation}"
            )
    mine = (f"deploy/{service}.json", f"services/{service}.toml")
    notes.extend(
        f"git: {refusal.file}:{refusal.line}: {refusal.reason} (refused; what was there before stays)"
        for refusal in (facts.sync.refused if facts.sync else [])
        if refusal.file in mine
    )
    return notes
