"""What `up` tells when all is up: what there is and what to try next. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from milkrun.model import ServiceName, VersionName, Wish
from milkrun.settings.environment import Environment, RouterSettings
from milkrun.settings.service import ServiceSettings

_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,5}")


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
        service, path = _example(router, services)
        tls = "--insecure https://" if router.certificates else ""  # it has no certificate for localhost
        tries.append((f"curl {tls}{_reachable(router.listen)}{path}", f"one request to {service}"))
    tries.append((f"{command} status", "all of it in one view"))
    tries += _shares(environment, services, wishes, command)
    tries += _deploy(environment, services, wishes, command)
    width = max(len(line) for line, _ in tries)
    lines += [f"  {line.ljust(width)}  # {why}" for line, why in tries]
    lines.append("Look at:")
    pages = [("registry", f"{environment.registry.url}/v1/catalog/services")]
    pages += [
        (name, f"http://{router.stats}/monitor") for name, router in sorted(environment.routers.items())
    ]
    width = max(len(name) for name, _ in pages)
    return [*lines, *(f"  {name.ljust(width)}  {page}" for name, page in pages)]


def front_door(environment: Environment, services: Mapping[ServiceName, ServiceSettings]) -> str:
    """The router that users come through: one whose service no other needs; empty without routers."""
    needed = {need for settings in services.values() for need in settings.needs}
    names = sorted(environment.routers)
    outer = [name for name in names if set(environment.routers[name].names(services)) - needed]
    doors = [name for name in outer if not environment.routers[name].sidecar]
    return (doors or outer or names or [""])[0]


def _example(
    router: RouterSettings, services: Mapping[ServiceName, ServiceSettings]
) -> tuple[ServiceName, str]:
    """A service that the router stands before, and a path that shows it."""
    service = ServiceName(next(iter(router.names(services)), ""))
    prefix = f"/{service}" if router.sidecar else ""
    below = ""
    if router.routes:
        plain = (route for route in router.routes if not (route.host or route.headers or route.methods))
        route = next(plain, router.routes[0])
        service = ServiceName(route.service)
        prefix, below = (route.path, "") if route.strip else ("", route.path)
    settings = services.get(service)
    example = settings.example if settings and settings.example else "/"
    if below not in {"", "/"} and example != below and not example.startswith(f"{below}/"):
        example = below
    return service, prefix.rstrip("/") + example


def _shares(
    environment: Environment,
    services: Mapping[ServiceName, ServiceSettings],
    wishes: Mapping[ServiceName, Wish],
    command: str,
) -> list[tuple[str, str]]:
    """How to change the shares of a service with two versions, one that others need if there is one."""
    service = _inmost(environment, services, [name for name in wishes if len(wishes[name].weights) == 2])
    if not service:
        return []
    first, second = sorted(wishes[service].weights)
    weights = wishes[service].weights
    why = "change the shares with a commit"
    tries = []
    if weights[first] == 80 and weights[second] == 20:
        tries.append((_set(command, service, (first, second), (50, 50)), why))
        why = "and back"
    tries.append((_set(command, service, (first, second), (80, 20)), why))
    return [*tries, (f"{command} weights {service}", "what is wanted and what is observed")]


def _deploy(
    environment: Environment,
    services: Mapping[ServiceName, ServiceSettings],
    wishes: Mapping[ServiceName, Wish],
    command: str,
) -> list[tuple[str, str]]:
    """How to roll out the next version of a service that numbers its versions, and the requests to judge it by."""
    following = {name: version for name, wish in wishes.items() if (version := _next(wish.versions))}
    service = _inmost(environment, services, list(following))
    if not service:
        return []
    tries = []
    routers = sorted(environment.routers.items())
    if before := [router for _, router in routers if router.service == service and not router.certificates]:
        url = f"http://{_reachable(before[0].listen)}{_example(before[0], services)[1]}"
        tries.append(
            (f"{command} load {url} --duration 10m", "elsewhere: requests, to judge new versions by")
        )
    return [
        *tries,
        (f"{command} deploy {service} {following[service]}", "a new version takes over, or is taken back"),
    ]


def _inmost(
    environment: Environment, services: Mapping[ServiceName, ServiceSettings], names: list[ServiceName]
) -> ServiceName | None:
    """One of these behind a router, one that others need if there is one."""
    routed = {name for router in environment.routers.values() for name in router.names(services)}
    needed = {need for settings in services.values() for need in settings.needs}
    return min((name for name in names if name in routed), key=lambda n: (n not in needed, n), default=None)


def _next(versions: Iterable[VersionName]) -> str:
    """The number after the highest; empty when these are no numbers."""
    numbers = [_NUMBER.fullmatch(name) for name in versions]
    known = [[int(part) for part in match[0].split(".")] for match in numbers if match]
    if not known or len(known) < len(numbers):
        return ""
    *rest, last = max(known)
    return ".".join(str(part) for part in (*rest, last + 1))


def _set(
    command: str, service: str, versions: tuple[VersionName, VersionName], weights: tuple[int, int]
) -> str:
    pairs = " ".join(f"{name}={weight}" for name, weight in zip(versions, weights, strict=True))
    return f"{command} weights {service} {pairs}"


def _reachable(listen: str) -> str:
    """The address as a person types it: one that listens everywhere is reached at localhost."""
    host, _, port = listen.rpartition(":")
    return f"localhost:{port}" if host in ("0.0.0.0", "[::]", "127.0.0.1") else listen  # noqa: S104
