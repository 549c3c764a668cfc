"""What `up` tells when all is up: what there is and what to try next. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from milkrun.model import ServiceName, VersionName, Wish
from milkrun.settings.environment import Environment
from milkrun.settings.service import ServiceSettings


def summary(
    environment: Environment,
    services: Mapping[ServiceName, ServiceSettings],
    wishes: Mapping[ServiceName, Wish],
    *,
    command: str,
) -> list[str]:
    """The lines; `command` is how to call milkrun for this environment from where the person is."""
    lines = [f"{environment.name} is up. Try:"]
    door = front_door(environment, services)
    tries: list[tuple[str, str]] = []
    if door:
        router = environment.routers[door]
        settings = services.get(ServiceName(router.service))
        path = settings.example if settings and settings.example else "/"
        tries.append((f"curl {_reachable(router.listen)}{path}", f"one request to {router.service}"))
    tries.append((f"{command} status", "all of it in one view"))
    tries += _shares(environment, services, wishes, command)
    width = max(len(line) for line, _ in tries)
    lines += [f"  {line.ljust(width)}  # {why}" for line, why in tries]
    lines.append("Look at:")
    pages = [("registry", f"http://{environment.registry.http}/v1/catalog/services")]
    pages += [
        (name, f"http://{router.stats}/monitor") for name, router in sorted(environment.routers.items())
    ]
    width = max(len(name) for name, _ in pages)
    return [*lines, *(f"  {name.ljust(width)}  {page}" for name, page in pages)]


def front_door(environment: Environment, services: Mapping[ServiceName, ServiceSettings]) -> str:
    """The router that users come through: one whose service no other needs; empty without routers."""
    needed = {need for settings in services.values() for need in settings.needs}
    names = sorted(environment.routers)
    outer = [name for name in names if environment.routers[name].service not in needed]
    return (outer or names or [""])[0]


def _shares(
    environment: Environment,
    services: Mapping[ServiceName, ServiceSettings],
    wishes: Mapping[ServiceName, Wish],
    command: str,
) -> list[tuple[str, str]]:
    """How to change the shares of a service with two versions, one that others need if there is one."""
    routed = {router.service for router in environment.routers.values()}
    needed = {need for settings in services.values() for need in settings.needs}
    fitting = [name for name in wishes if name in routed and len(wishes[name].weights) == 2]
    if not fitting:
        return []
    service = min(fitting, key=lambda name: (name not in needed, name))
    first, second = sorted(wishes[service].weights)
    weights = wishes[service].weights
    why = "change the shares with a commit"
    tries = []
    if weights[first] == 80 and weights[second] == 20:
        tries.append((_set(command, service, (first, second), (50, 50)), why))
        why = "and back"
    tries.append((_set(command, service, (first, second), (80, 20)), why))
    return [*tries, (f"{command} weights {service}", "what is wanted and what is observed")]


def _set(
    command: str, service: str, versions: tuple[VersionName, VersionName], weights: tuple[int, int]
) -> str:
    pairs = " ".join(f"{name}={weight}" for name, weight in zip(versions, weights, strict=True))
    return f"{command} weights {service} {pairs}"


def _reachable(listen: str) -> str:
    """The address as a person types it: one that listens everywhere is reached at localhost."""
    host, _, port = listen.rpartition(":")
    return f"localhost:{port}" if host in ("0.0.0.0", "[::]", "127.0.0.1") else listen  # noqa: S104
