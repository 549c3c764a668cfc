"""Which parts an environment has on this machine, and in which order they start and stop. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from milkrun.model import ServiceName
from milkrun.settings.environment import Environment, RegistrySettings
from milkrun.settings.needs import stopping_waves
from milkrun.settings.service import ServiceSettings


class Kind(StrEnum):
    """What a part is, in the order in which they start."""

    REGISTRY = "registry"
    GITSYNC = "gitsync"
    AGENT = "agent"
    ROUTER = "router"
    ROLLOUTS = "rollouts"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part. `arguments` follow `milkrun --env DIR`; `stop_s` is how long its clean stop may take."""

    name: str
    kind: Kind
    arguments: list[str]
    stop_s: float


STOP_S = 10.0
ROUTER_STOP_S = 40.0
SPARE_S = 15.0


def parts(
    environment: Environment, services: Mapping[ServiceName, ServiceSettings], home: str = "."
) -> list[Part]:
    """The parts in the order in which they start. `home` is the environment's folder."""
    url = environment.registry.url
    registry = _registry(environment.registry, home)
    drain_s = max((one.stop.drain_limit_s + one.stop.stop_limit_s for one in services.values()), default=0.0)
    return [
        Part(name="registry", kind=Kind.REGISTRY, arguments=registry, stop_s=STOP_S),
        Part(name="gitsync", kind=Kind.GITSYNC, arguments=["gitsync", "--registry", url], stop_s=STOP_S),
        Part(name="agent", kind=Kind.AGENT, arguments=["agent", "--registry", url], stop_s=drain_s + SPARE_S),
        *(
            Part(
                name=name,
                kind=Kind.ROUTER,
                arguments=["router", name, "--registry", url],
                stop_s=ROUTER_STOP_S,
            )
            for name in reversed(routers_in_stop_order(environment, services))
        ),
        Part(name="rollouts", kind=Kind.ROLLOUTS, arguments=["rollouts", "--registry", url], stop_s=STOP_S),
    ]


def _registry(settings: RegistrySettings, home: str) -> list[str]:
    found = ["registry", "--http", settings.http, "--acl", settings.acl]
    if settings.dns:
        found += ["--dns", settings.dns, "--srv-weight-scale", str(settings.srv_weight_scale)]
    files = {"--tls-cert": settings.tls_cert, "--tls-key": settings.tls_key, "--tls-ca": settings.tls_ca}
    found += [
        f"{option}={file if file.startswith('/') else f'{home}/{file}'}"
        for option, file in files.items()
        if file
    ]
    found += [f"--allow-host={name}" for name in settings.allow_host]
    found += [f"--check-allow={network}" for network in settings.check_allow]
    return found


def stop_order(started: list[Part]) -> list[list[Part]]:
    """The parts in groups: a group stops together, after the one before it has ended.

    First what changes things; then routers one after another, the one that others' requests come through last; then
    the agent, whose instances nobody calls any more; then gitsync; the registry, which all of them report to, last.
    """
    engines = [[part] for part in started if part.kind is Kind.ROLLOUTS]
    routers = [[part] for part in reversed(started) if part.kind is Kind.ROUTER]
    rest = [
        [part] for kind in (Kind.AGENT, Kind.GITSYNC, Kind.REGISTRY) for part in started if part.kind is kind
    ]
    return [*engines, *routers, *rest]


def routers_in_stop_order(
    environment: Environment, services: Mapping[ServiceName, ServiceSettings]
) -> list[str]:
    """The routers' names: one whose service calls another's comes before it, but for services in a circle.

    An edge goes with the first of its services, as users come through it; a sidecar with the last one.
    """
    fronted = {
        name: [ServiceName(service) for service in router.names(services)]
        for name, router in environment.routers.items()
    }
    needs: dict[ServiceName, list[str]] = {service: [] for each in fronted.values() for service in each}
    needs |= {name: settings.needs for name, settings in services.items()}
    wave = {name: number for number, names in enumerate(stopping_waves(needs)) for name in names}

    def place(name: str) -> tuple[int, str]:
        waves = [wave[service] for service in fronted[name]]
        return (max if environment.routers[name].sidecar else min)(waves, default=0), name

    return sorted(fronted, key=place)
