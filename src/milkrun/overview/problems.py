"""What in an environment needs a person, and what that person should do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from milkrun.model import Health, Instance, RouterId, RouterReport, ServiceName, Wish
from milkrun.overview.facts import Facts
from milkrun.overview.rolling import needing
from milkrun.settings.environment import RouterSettings

BEHIND_S = 10.0
"""A router may be this late with a commit before it counts as a problem."""

_STUCK = ("backoff", "unhealthy")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """`what` is wrong and `remedy`, the next thing to do. `service` is empty when it concerns all of them."""

    service: str
    what: str
    remedy: str


def problems(facts: Facts, *, now: float) -> list[Problem]:
    """Each problem once, the one to look at first in front."""
    return [
        *_sync(facts),
        *_missing_parts(facts),
        *_alarms(facts.routers),
        *(problem for report in facts.routers for problem in _router(report, facts, now)),
        *_units(facts),
        *_instances(facts),
        *_replicas(facts),
        *(
            Problem(service=service, what=what, remedy=remedy)
            for service, what, remedy in needing(facts.rollouts, facts.engines)
        ),
        *(
            Problem(
                service="",
                what=f"the registry's {key} is not what this version of Milkrun can read",
                remedy="run the same version of Milkrun everywhere (`milkrun --version`)",
            )
            for key in facts.unreadable
        ),
    ]


def _sync(facts: Facts) -> Iterator[Problem]:
    if facts.sync is None:
        yield Problem(
            service="",
            what="gitsync does not report: new commits are not followed",
            remedy="start it with `milkrun up` or `milkrun gitsync`",
        )
        return
    if facts.sync.trouble:
        yield Problem(
            service="", what=f"gitsync: {facts.sync.trouble}", remedy="milkrun logs gitsync shows more"
        )
    for refusal in facts.sync.refused:
        place = f"{refusal.file}:{refusal.line}" if refusal.line else refusal.file
        yield Problem(
            service=service_of(refusal.file),
            what=f"{place}: {refusal.reason}",
            remedy=f"mend {refusal.file} and commit; until then the registry keeps what it had",
        )


def service_of(file: str) -> str:
    """The service that a file of the repository speaks of; empty when it speaks of all."""
    folder, _, name = file.rpartition("/")
    return name.rpartition(".")[0] if folder in ("deploy", "services") else ""


def _missing_parts(facts: Facts) -> Iterator[Problem]:
    settings = facts.environment.settings if facts.environment else None
    wanted = any(wish.replicas for wishes in facts.wishes.values() for wish in wishes.versions.values())
    if wanted and not facts.agents:
        yield Problem(
            service="",
            what="no agent reports: no instance is started, stopped or probed",
            remedy="start one with `milkrun up` or `milkrun agent`",
        )
    for name, router in sorted(settings.routers.items()) if settings else []:
        for service in router.names(facts.settings):
            if any(is_router(report, name, router, service) for report in facts.routers):
                continue
            yield Problem(
                service=service,
                what=f"router {name} does not report: {service} is served as it was, or not at all",
                remedy=f"start it with `milkrun up` or `milkrun router {name}`; "
                f"`milkrun logs {name}` shows why it ended",
            )


def is_router(report: RouterReport, name: str, router: RouterSettings, service: str) -> bool:
    """Whether the report is one on the service by the router that the environment calls `name`, on whatever host."""
    stands_for = (report.service, report.listen) == (service, router.listen)
    return stands_for and (report.router == name or report.router.startswith(f"{name}-"))


def _alarms(reports: Iterable[RouterReport]) -> Iterator[Problem]:
    """What a router says of itself is in the report of each of its services: it is told once, as everybody's."""
    services: dict[tuple[RouterId, str], list[ServiceName]] = {}
    for report in reports:
        for alarm in report.alarms:
            services.setdefault((report.router, alarm), []).append(report.service)
    for (router, alarm), those in services.items():
        service = those[0] if len(those) == 1 else ""
        yield Problem(service=service, what=f"{router}: {alarm}", remedy=f"milkrun explain {those[0]}")


def _router(report: RouterReport, facts: Facts, now: float) -> Iterator[Problem]:
    look = f"milkrun explain {report.service}"
    for why in report.held:
        yield Problem(service=report.service, what=f"{report.router} holds: {why}", remedy=look)
    for drift in report.drift:
        yield Problem(
            service=report.service,
            what=f"{report.router} found a change that is not from git: {drift}",
            remedy=f"milkrun logs {report.router} shows what it did about it",
        )
    mark = facts.wishes.get(report.service, Wish()).mark
    synced = facts.sync.synced_at if facts.sync else now
    if mark and not report.held and report.generation < mark.generation and now - synced > BEHIND_S:
        yield Problem(
            service=report.service,
            what=f"{report.router} still serves generation {report.generation}, git is at {mark.generation}",
            remedy=f"milkrun logs {report.router} shows why",
        )


def _units(facts: Facts) -> Iterator[Problem]:
    for agent in facts.agents:
        for alarm in agent.alarms:
            yield Problem(
                service=alarm.partition("/")[0] if not alarm.startswith("milkrun/") else "",
                what=f"the agent on {agent.host}: {alarm}",
                remedy="if that is meant, there: kill -USR2 $(cat .milkrun/agent/daemon.lock); the next agent takes"
                " its instances over and follows it",
            )
        for unit in agent.units:
            if unit.state in _STUCK:
                again = f" after {unit.restarts} restarts" if unit.restarts else ""
                yield Problem(
                    service=unit.service,
                    what=f"{unit.instance} on {agent.host} is in state {unit.state}{again}: {unit.reason}",
                    remedy=unit.remedy or f"milkrun logs {unit.instance}",
                )


def _instances(facts: Facts) -> Iterator[Problem]:
    told = {
        unit.instance for agent in facts.agents for unit in agent.units if unit.state in (*_STUCK, "draining")
    }
    for service, instances in sorted(facts.instances.items()):
        for instance in instances:
            if instance.id not in told and _sick(instance):
                yield Problem(
                    service=service,
                    what=f"{instance.id} is {instance.health}: {_first_line(instance.reason)}",
                    remedy=f"milkrun explain {instance.id}",
                )


def _sick(instance: Instance) -> bool:
    return instance.health in (Health.CRITICAL, Health.LOST)


def _replicas(facts: Facts) -> Iterator[Problem]:
    for service, wish in sorted(facts.wishes.items()):
        for version, asked in wish.versions.items():
            mine = [one for one in facts.instances.get(service, []) if one.version == version]
            healthy = sum(instance.healthy for instance in mine)
            if asked.replicas and healthy < asked.replicas and not _told(facts, service, version):
                yield Problem(
                    service=service,
                    what=f"{service} {version}: {healthy} of {asked.replicas} instances are healthy"
                    + _not_yet(facts, service, version),
                    remedy=f"milkrun explain {service}",
                )


def _not_yet(facts: Facts, service: ServiceName, version: str) -> str:
    """What the probes of those that are starting say."""
    units = [unit for agent in facts.agents for unit in agent.units]
    starting = [u for u in units if (u.service, u.version, u.state) == (service, version, "starting")]
    return "".join(f"; {unit.instance}: {unit.reason}" for unit in starting[:1] if unit.reason)


def _told(facts: Facts, service: ServiceName, version: str) -> bool:
    """Whether another problem already says why this version has too few."""
    units = [unit for agent in facts.agents for unit in agent.units]
    stuck = any(u.service == service and u.version == version and u.state in _STUCK for u in units)
    sick = any(one.version == version and _sick(one) for one in facts.instances.get(service, []))
    return stuck or sick or not facts.agents


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200] or "no reason given"
