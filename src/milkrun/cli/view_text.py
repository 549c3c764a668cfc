"""The view of an environment as text: `status` and `weights`. Pure."""

from __future__ import annotations

from milkrun.cli.table import percent, short, table
from milkrun.model import AgentReport
from milkrun.overview.rolling import RolloutLine
from milkrun.overview.view import InstanceView, RouterView, ServiceView, VersionView, View

WHY_AT_MOST = 60
OUTCOMES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")


def status_lines(view: View, *, closely: bool = False) -> list[str]:
    """All of the view, the services first and what to do next at the end; `closely` with how they answer."""
    return [_headline(view), *_body(view, closely=closely), *problem_lines(view)]


def watch_lines(view: View, width: int, height: int, *, closely: bool = False) -> list[str]:
    """The view on a screen of this size: what needs a person stands at the top, and no line is broken."""
    lines = [_headline(view), *problem_lines(view), *_body(view, closely=closely)]
    if len(lines) > height:
        rest = len(lines) - height + 1
        lines = [
            *lines[: height - 1],
            f"... {rest} more lines; `milkrun status -w SERVICE` shows one service",
        ]
    return [_cut(line, width) for line in lines]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def _body(view: View, *, closely: bool = False) -> list[str]:
    lines: list[str] = []
    for service in view.services:
        lines += ["", *service_lines(service, closely=closely)]
    if not view.services:
        lines += ["", "no services yet: add services/NAME.toml and deploy/NAME.json, and commit"]
    # A router with several services reports on each: it has one line, with what it says of the first.
    routers = list(
        {router.router: router for service in reversed(view.services) for router in service.routers}.values()
    )
    if routers:
        lines += ["", "routers", *_routers(routers)]
    if view.agents:
        lines += ["", "agents", *(f"  {agent.host}: {_units(agent)}" for agent in view.agents)]
    if view.parts:
        lines += ["", "parts", *_parts(view)]
    return lines


def _headline(view: View) -> str:
    sync = view.gitsync
    if not sync.alive:
        git = "gitsync does not report"
    elif sync.commit is None:
        git = "nothing synced yet"
    else:
        git = f"{sync.branch} at {short(sync.commit)} (generation {sync.generation})"
    return f"{view.environment or 'no environment published'}: {git}, registry {view.registry}"


def service_lines(service: ServiceView, *, closely: bool = False) -> list[str]:
    """One service: its versions, how they answer when somebody looks `closely`, then its instances."""
    at = f" at {short(service.commit)}" if service.commit else ""
    listens = ", ".join(f"{router.router} on {router.listen}" for router in service.routers)
    maintenance = ", in maintenance" if service.maintenance else ""
    lines = [
        f"{service.service}{at}{maintenance}: {f'served by {listens}' if listens else 'no router reports'}"
    ]
    if service.rollout:
        lines.append(_rollout(service.rollout))
    lines += version_table(service)
    if closely and service.requests:
        lines += answer_table(service)
    if service.instances:
        lines += instance_table(service.instances)
    return lines


def _rollout(rollout: RolloutLine) -> str:
    """What is under way."""
    stands = f"held: {rollout.held}" if rollout.held else ""
    waits = f"waits for {', '.join(rollout.waits_for)}" if rollout.waits_for else ""
    about = "; ".join(
        part for part in (stands, waits, rollout.reason and f"because {rollout.reason}") if part
    )
    return (
        f"  rollout of {rollout.version} ({rollout.strategy}) {rollout.phase}, step {rollout.step} of {rollout.steps}"
        + (f": {about}" if about else "")
    )


def version_table(service: ServiceView) -> list[str]:
    """The versions with their wanted and observed shares."""
    return table(
        [">VERSION", ">WEIGHT", ">WANT", ">SERVED", ">OBSERVED", ">REQUESTS", ">FAILED", "INSTANCES"],
        [
            [
                version.version,
                "" if version.weight is None else f"{version.weight:g}",
                percent(version.wanted),
                percent(version.served),
                percent(version.observed),
                f"{version.requests:,}",
                f"{version.failures:,}",
                _healthy(version),
            ]
            for version in service.versions
        ],
    )


def answer_table(service: ServiceView) -> list[str]:
    """How each version answered since the shares last changed: how fast, with what, and how much."""
    outcomes = [name for name in OUTCOMES if any(name in version.answers for version in service.versions)]
    heads = [name if name[0].isdigit() else name.upper() for name in outcomes]
    return table(
        [
            *(">VERSION", ">P50", ">P90", ">P99"),
            *(f">{head}" for head in heads),
            *(">IN FLIGHT", ">IN", ">OUT"),
        ],
        [
            [
                version.version,
                *(_took(ms) for ms in (version.p50_ms, version.p90_ms, version.p99_ms)),
                *(f"{version.answers.get(name, 0):,}" for name in outcomes),
                f"{version.in_flight:,}",
                _size(version.bytes_in),
                _size(version.bytes_out),
            ]
            for version in service.versions
        ],
    )


def _took(ms: float | None) -> str:
    """To two digits, as exactly as it is known."""
    if ms is None:
        return ""
    if ms >= 1000:
        return f"{ms / 1000:.2g} s"
    return f"{ms:.2g} ms" if ms < 100 else f"{round(ms, -1):.0f} ms"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} GB"


def _healthy(version: VersionView) -> str:
    wanted = version.running if version.replicas is None else version.replicas
    surplus = max(0, version.running - wanted)
    return f"{version.healthy} of {wanted} healthy" + (f", {surplus} too many" if surplus else "")


def instance_table(instances: list[InstanceView]) -> list[str]:
    """The instances with their health and what the routers do with them."""
    return table(
        ["INSTANCE", "ADDRESS", "HEALTH", "TRAFFIC", "WHY"],
        [
            [
                one.id,
                f"{one.address}:{one.port}",
                one.health,
                _traffic(one.traffic),
                _shortened("" if one.health in ("passing", "healthy") else one.reason),
            ]
            for one in instances
        ],
    )


def _traffic(by_router: dict[str, str]) -> str:
    states = set(by_router.values())
    if len(states) <= 1:
        return "".join(states)
    return ", ".join(f"{router} {state}" for router, state in sorted(by_router.items()))


def _shortened(reason: str) -> str:
    return _cut(" ".join(reason.split()), WHY_AT_MOST)


def _routers(routers: list[RouterView]) -> list[str]:
    return table(
        ["ROUTER", "COMMIT", ">GEN", ">RELOADS", "STATE", "STATS"],
        [
            [
                router.router,
                short(router.commit),
                str(router.generation),
                str(router.reloads),
                router_state(router),
                router.stats.removeprefix("http://"),
            ]
            for router in routers
        ],
    )


def router_state(router: RouterView) -> str:
    """One word or two: in step, behind, held, or changed by hand."""
    if router.held:
        return f"held for {router.unequal_s:.0f} s"
    if router.drift:
        return f"drifted for {router.unequal_s:.0f} s"
    return "behind" if router.behind else "in step"


def _units(agent: AgentReport) -> str:
    states: dict[str, int] = {}
    for unit in agent.units:
        states[unit.state] = states.get(unit.state, 0) + 1
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return counts or "runs nothing"


def _parts(view: View) -> list[str]:
    return table(
        ["PART", "ADDRESS", "STATE"],
        [
            [part.part, part.address, "alive" if part.alive else f"gone: {_shortened(part.reason)}"]
            for part in view.parts
        ],
    )


def problem_lines(view: View) -> list[str]:
    """What needs a person, and the next thing to do; nothing when all is well."""
    if not view.problems:
        return []
    lines = ["", "problems", *(f"  {problem.what}" for problem in view.problems)]
    return [*lines, f"next: {view.problems[0].remedy}"]


def weights_lines(view: View, service: ServiceView) -> list[str]:
    """The want and the observed share of one service's versions, and which commit each router serves."""
    at = f" at {short(service.commit)} (generation {service.generation})" if service.commit else ""
    requests = f"{service.requests:,} request{'s' * (service.requests != 1)}"
    lines = [f"{service.service}{at}, observed over {requests}", *version_table(service)]
    for router in service.routers:
        serves = f"serves {short(router.commit) or 'no commit'} (generation {router.generation})"
        lines.append(f"{router.router} {serves}, {router_state(router)}")
        lines += [f"  held: {why}" for why in router.held]
    if not service.routers:
        lines.append("no router reports for it")
    return [*lines, *problem_lines(view)]
