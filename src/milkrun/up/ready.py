"""What an environment still waits for before all that git asks for serves. Pure."""

from __future__ import annotations

import msgspec

from milkrun.model import RouterReport, ServiceName, Wish
from milkrun.overview.facts import Facts
from milkrun.overview.problems import is_router
from milkrun.settings.environment import Environment


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """`waits` will come by themselves; what is `stuck` needs a person, and is not waited for."""

    waits: list[str] = []
    stuck: list[str] = []

    @property
    def over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return not self.waits


def pending(facts: Facts, environment: Environment, *, since: float) -> Pending:
    """What is missing between the facts and what git asks for.

    Facts of before `since` (seconds since 1970) may speak of what has been killed: they count once an agent
    that started later has looked, and only routers that did are up.
    """
    if facts.sync is None or (facts.sync.commit is None and not facts.sync.trouble):
        return Pending(waits=["gitsync to read the repository"])
    waits: list[str] = []
    if not any(agent.since >= since for agent in facts.agents):
        waits.append("the agent")
    stuck = [f"gitsync: {facts.sync.trouble}"] if facts.sync.trouble else []
    stuck += [f"{refusal.file}:{refusal.line}: {refusal.reason}" for refusal in facts.sync.refused]
    for service, wish in sorted(facts.wishes.items()):
        _instances(facts, service, wish, waits, stuck)
    for name, router in sorted(environment.routers.items()):
        for fronted in router.names(facts.settings):
            reports = [
                one for one in facts.routers if is_router(one, name, router, fronted) and one.since >= since
            ]
            _served(name, reports, facts.wishes.get(ServiceName(fronted), Wish()), waits, stuck)
    return Pending(waits=waits, stuck=stuck)


def _served(name: str, reports: list[RouterReport], wish: Wish, waits: list[str], stuck: list[str]) -> None:
    if not reports:
        waits.append(name)
    mark = wish.mark
    for report in reports:
        stuck.extend(f"{name} holds: {why}" for why in report.held)
        if mark and report.generation < mark.generation and not report.held:
            waits.append(f"{name} to serve {mark.commit[:7]}")


def _instances(facts: Facts, service: ServiceName, wish: Wish, waits: list[str], stuck: list[str]) -> None:
    units = [unit for agent in facts.agents for unit in agent.units if unit.service == service]
    for version, asked in wish.versions.items():
        healthy = sum(one.healthy for one in facts.instances.get(service, []) if one.version == version)
        failing = [unit for unit in units if unit.version == version and unit.state == "backoff"]
        stuck.extend(
            f"{unit.instance} does not start: {unit.reason}; its log: {unit.log}" for unit in failing
        )
        if healthy + len(failing) < (asked.replicas or 0):
            waits.append(f"{service} {version} ({healthy} of {asked.replicas} healthy)")
