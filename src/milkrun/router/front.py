"""Where a router stands: what it listens on, and which request goes to which service. Pure, in no data plane's words.

One shape for three places: a load balancer has one route, which takes everything; a sidecar has one a service,
`/<service>/...`, whose prefix the instance does not see; an edge has the rules of `milkrun.toml`. Routes come
from the environment's files only, never from what a registrant could write.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from milkrun.model import ServiceName, host_port, service_name
from milkrun.settings.environment import RouterSettings
from milkrun.settings.service import ServiceSettings, TrafficSettings


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of this kind are the service's. An empty field takes any; `path` counts in whole segments.

    With `strip` the instance sees the path without `path`. `headers` are exact values, by name in lower case.
    """

    service: ServiceName
    host: str = ""
    path: str = "/"
    methods: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    strip: bool = False

    @property
    def everything(self) -> bool:
        """Whether it takes every request."""
        return not (self.host or self.path != "/" or self.methods or self.headers)


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """What a data plane needs a reload for. The first route that fits a request takes it.

    `services` are those that a route names, each with what its own file says of its traffic. `local` says that the
    callers are this host's own programs; of others only those in the networks of `trust` are believed when they say
    whom they call for. `certificates` is the folder to take them from, empty without TLS. At `metrics` the router
    itself shows its figures, which takes no reload.
    """

    name: str
    listen: tuple[str, int]
    stats: tuple[str, int]
    routes: tuple[Route, ...]
    services: dict[ServiceName, TrafficSettings]
    data_plane: Literal["haproxy", "envoy"] = "haproxy"
    local: bool = False
    trust: tuple[str, ...] = ()
    certificates: str = ""
    metrics: tuple[str, int] | None = None


def front(name: str, settings: RouterSettings, services: Mapping[ServiceName, ServiceSettings]) -> Front:
    """The front of a router, from the environment's files. A sidecar stands before every one of `services`."""
    routes = tuple(route for route in _routes(settings, sorted(services)) if _fits(route, services))
    listen = host_port(settings.listen)
    return Front(
        name=name,
        listen=listen,
        stats=host_port(settings.stats),
        data_plane=settings.data_plane,
        routes=routes,
        services={
            route.service: services[route.service].traffic if route.service in services else TrafficSettings()
            for route in routes
        },
        local=settings.sidecar and ipaddress.ip_address(listen[0]).is_loopback,
        trust=tuple(settings.trust),
        certificates=settings.certificates,
        metrics=host_port(settings.metrics) if settings.metrics else None,
    )


def _fits(route: Route, services: Mapping[ServiceName, ServiceSettings]) -> bool:
    """A service that does not speak HTTP has a router of its own: nothing in its bytes says whose they are."""
    known = services.get(route.service)
    return route.everything or known is None or known.traffic.protocol != "tcp"


def _routes(settings: RouterSettings, services: Iterable[ServiceName]) -> Iterable[Route]:
    if settings.service:
        yield Route(service=service_name(settings.service))
    elif settings.sidecar:
        for service in services:
            yield Route(service=service, path=f"/{service}", strip=True)
    else:
        for route in settings.routes:
            yield Route(
                service=service_name(route.service),
                host=route.host.lower(),
                path=route.path,
                methods=tuple(route.methods),
                headers=tuple(sorted((name.lower(), value) for name, value in route.headers.items())),
                strip=route.strip,
            )
