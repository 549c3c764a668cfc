"""What a person or a script wants to know of an environment, from the registry's facts. Pure.

`View` is the object of `milkrun status --json`; its `schema_version` grows when a field changes its meaning.
"""

from __future__ import annotations

import msgspec

from milkrun.latency import quantile_ms
from milkrun.model import (
    SHARE_SLOTS,
    AgentReport,
    Figures,
    Health,
    Instance,
    Refusal,
    RouterReport,
    ServiceName,
    UnitReport,
    VersionName,
    Wish,
)
from milkrun.overview.facts import Facts
from milkrun.overview.problems import Problem, problems
from milkrun.overview.rolling import RolloutLine, line


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """One version. Shares are fractions of 1; None when there is nothing to say.

    `wanted` is what git asks for, `served` what the routers now apply (their mean), `observed` the share of
    the `requests` that they have seen since the shares last changed. Of these requests are also `failures`,
    `answers` by class, the bytes, and the latency quantiles in milliseconds (None when no answer was timed).
    """

    version: VersionName
    weight: float | None
    wanted: float | None
    served: float | None
    observed: float | None
    requests: int
    failures: int
    answers: dict[str, int]
    bytes_in: int
    bytes_out: int
    in_flight: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    replicas: int | None
    running: int
    healthy: int


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """One instance, in the catalog or not yet. `traffic` is what each router last did with it, by router."""

    id: str
    version: VersionName
    address: str
    port: int
    health: str
    reason: str
    log: str
    traffic: dict[str, str]


class RouterView(msgspec.Struct, frozen=True, kw_only=True):
    """One live router. `behind` says that git's last synced commit for its service is not served yet, and
    `unequal_s` for how long the data plane has differed from the wish: 0 while it equals it.
    """

    router: str
    service: ServiceName
    host: str
    listen: str
    stats: str
    commit: str | None
    generation: int
    behind: bool
    reloads: int
    unequal_s: float
    drift: list[str]
    held: list[str]
    alarms: list[str]
    data_plane: str


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """One service. `commit` and `generation` are those of its keys in the registry; `rollout` is None when none is
    under way.
    """

    service: ServiceName
    commit: str | None
    generation: int
    maintenance: bool
    requests: int
    versions: list[VersionView]
    instances: list[InstanceView]
    routers: list[RouterView]
    rollout: RolloutLine | None = None


class SyncView(msgspec.Struct, frozen=True, kw_only=True):
    """What gitsync last did. `alive` is false when it does not report."""

    alive: bool
    repository: str
    branch: str
    commit: str | None
    generation: int
    refused: list[Refusal]
    trouble: str


class PartView(msgspec.Struct, frozen=True, kw_only=True):
    """One of Milkrun's own parts, as the catalog shows it."""

    part: str
    address: str
    alive: bool
    reason: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The whole environment. `healthy` is false when `problems` has a line."""

    schema_version: int = 1
    environment: str
    registry: str
    healthy: bool
    services: list[ServiceView]
    gitsync: SyncView
    agents: list[AgentReport]
    parts: list[PartView]
    problems: list[Problem]


def view(facts: Facts, *, registry: str, now: float, only: ServiceName | None = None) -> View:
    """The view of the facts at `now` (seconds since 1970); `only` leaves the other services out."""
    names = sorted(
        name for name in {*facts.instances, *facts.wishes, *facts.settings} if _is_there(facts, name)
    )
    found = [problem for problem in problems(facts, now=now) if only is None or problem.service in ("", only)]
    sync = facts.sync
    return View(
        environment=facts.environment.settings.name if facts.environment else "",
        registry=registry,
        healthy=not found,
        services=[_service(facts, name, now) for name in names if only in (None, name)],
        gitsync=SyncView(
            alive=sync is not None,
            repository=sync.repository if sync else "",
            branch=sync.branch if sync else "",
            commit=sync.commit if sync else None,
            generation=sync.generation if sync else 0,
            refused=sync.refused if sync else [],
            trouble=sync.trouble if sync else "",
        ),
        agents=sorted(facts.agents, key=lambda agent: agent.host),
        parts=_parts(facts),
        problems=found,
    )


def _is_there(facts: Facts, name: ServiceName) -> bool:
    """Whether anything of the service is left: of one that git has ended, only the mark of the commit stays."""
    wish = facts.wishes.get(name, Wish())
    units = [unit.service for agent in facts.agents for unit in agent.units]
    routed = [report.service for report in facts.routers]
    left = bool(wish.versions or wish.maintenance or facts.instances.get(name))
    return left or name in facts.settings or name in units or name in routed


def wanted_shares(wish: Wish) -> dict[VersionName, float]:
    """What git asks for each weighted version, as fractions of 1; empty when nobody has a weight."""
    total = sum(wish.weights.values())
    return {name: weight / total for name, weight in wish.weights.items()} if total else {}


def _service(facts: Facts, name: ServiceName, now: float) -> ServiceView:
    wish = facts.wishes.get(name, Wish())
    instances = facts.instances.get(name, [])
    routers = sorted((r for r in facts.routers if r.service == name), key=lambda report: report.router)
    units = [unit for agent in facts.agents for unit in agent.units if unit.service == name]
    versions = sorted(
        set(wish.versions)
        | {instance.version for instance in instances}
        | {unit.version for unit in units}
        | {version for report in routers for version in report.versions}
    )
    total = sum(traffic.window.requests for report in routers for traffic in report.versions.values())
    mark = wish.mark
    return ServiceView(
        service=name,
        commit=mark.commit if mark else None,
        generation=mark.generation if mark else 0,
        maintenance=wish.maintenance,
        requests=total,
        versions=[_version(version, wish, instances, routers, total) for version in versions],
        instances=_instances(instances, units, routers),
        routers=[router_view(report, wish, now) for report in routers],
        rollout=line(facts.rollouts.get(name)),
    )


def _version(
    version: VersionName, wish: Wish, instances: list[Instance], routers: list[RouterReport], total: int
) -> VersionView:
    asked = wish.versions.get(version)
    shares = wanted_shares(wish)
    wanted = shares.get(version, 0.0) if shares else None
    seen = [report.versions[version] for report in routers if version in report.versions]
    figures = Figures.together(traffic.window for traffic in seen)
    p50, p90, p99 = (quantile_ms(figures.latency, fraction) for fraction in (0.5, 0.9, 0.99))
    mine = [instance for instance in instances if instance.version == version]
    return VersionView(
        version=version,
        weight=asked.weight if asked else None,
        wanted=wanted,
        served=sum(traffic.share for traffic in seen) / (SHARE_SLOTS * len(routers)) if routers else None,
        observed=figures.requests / total if total else None,
        requests=figures.requests,
        failures=figures.failures,
        answers=figures.answers,
        bytes_in=figures.bytes_in,
        bytes_out=figures.bytes_out,
        in_flight=sum(traffic.in_flight for traffic in seen),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        replicas=asked.replicas if asked else None,
        running=sum(instance.health is not Health.MAINTENANCE for instance in mine),
        healthy=sum(instance.healthy for instance in mine),
    )


def _instances(
    instances: list[Instance], units: list[UnitReport], routers: list[RouterReport]
) -> list[InstanceView]:
    by_id = {unit.instance: unit for unit in units}
    found = []
    for instance in instances:
        unit = by_id.pop(instance.id, None)
        found.append(
            InstanceView(
                id=instance.id,
                version=instance.version,
                address=instance.address,
                port=instance.port,
                health=instance.health.value,
                reason=instance.reason,
                log=unit.log if unit else "",
                traffic=_traffic(instance.id, routers),
            )
        )
    found.extend(
        InstanceView(
            id=unit.instance,
            version=unit.version,
            address=unit.address,
            port=unit.port,
            health=unit.state,
            reason=unit.reason,
            log=unit.log,
            traffic=_traffic(unit.instance, routers),
        )
        for unit in by_id.values()
    )
    return sorted(found, key=lambda one: (one.version, one.id))


def _traffic(instance: str, routers: list[RouterReport]) -> dict[str, str]:
    return {
        report.router: traffic.state
        for report in routers
        for name, traffic in report.instances.items()
        if name == instance
    }


def router_view(report: RouterReport, wish: Wish, now: float) -> RouterView:
    """The report as people read it at `now`, next to what git now asks for."""
    return RouterView(
        router=report.router,
        service=report.service,
        host=report.host,
        listen=report.listen,
        stats=report.stats,
        commit=report.commit,
        generation=report.generation,
        behind=wish.mark is not None and report.generation < wish.mark.generation,
        reloads=report.reloads,
        unequal_s=round(max(0.0, now - report.unequal_since), 1) if report.unequal_since else 0.0,
        drift=report.drift,
        held=report.held,
        alarms=report.alarms,
        data_plane=report.data_plane,
    )


def _parts(facts: Facts) -> list[PartView]:
    entries = [*facts.parts, *(entry for group in facts.balancers.values() for entry in group)]
    return [
        PartView(
            part=entry.id,
            address=f"{entry.address}:{entry.port}" if entry.port else entry.address,
            alive=entry.healthy,
            reason=entry.reason,
        )
        for entry in sorted(entries, key=lambda entry: entry.id)
    ]
