"""What an Envoy gets that is not the router's own: its node id says whose traffic it carries. Pure.

- `goat`, or `goat/` and any name of its own: the clusters and the routes (named `goat`) of the service goat. The
  router's name in its place: all services of the router by its routes.
- With `listen` in its metadata it gets a listener there, as the router's own Envoy has one. Without, it brings its own,
  in which it asks for the routes: what only works with the router's listener is left out of them then.
- No secret leaves the router's host: where the router listens by TLS it gets no listener, and a tester's signed
  cookie is taken away but says nothing.
"""

from __future__ import annotations

import ipaddress

import msgspec

from milkrun.errors import InputRefused, NotFound
from milkrun.model import ServiceName, host_port
from milkrun.router.front import Front, Route
from milkrun.settings.service import TrafficSettings


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Whose traffic an Envoy carries, and where it wants to listen."""

    whose: str
    listen: tuple[str, int] | None = None


def asked(node: str, listen: str) -> Asked:
    """What the node id and the metadata ask for; raises InputRefused for an address that is none."""
    return Asked(whose=node.partition("/")[0], listen=host_port(listen) if listen else None)


def front_for(front: Front, asked: Asked) -> Front:
    """The router's front as this Envoy stands there. Raises NotFound and InputRefused."""
    if asked.listen and front.certificates:
        raise InputRefused(
            f"{front.name} listens by TLS, and its keys stay on its host",
            remedy="take `listen` out of the node's metadata, and bring a listener with a certificate of its own",
        )
    service = ServiceName(asked.whose)
    if service in front.services:
        routes: tuple[Route, ...] = (Route(service=service),)
        services = {service: front.services[service]}
    elif asked.whose == front.name:
        routes, services = front.routes, front.services
    else:
        raise NotFound(
            f"{front.name} has no service {asked.whose[:80]!r}",
            remedy=f"set the node's id to one of: {', '.join(sorted({*front.services, front.name}))}",
        )
    if asked.listen is None:
        services = {name: _without_our_listener(traffic) for name, traffic in services.items()}
    listen = asked.listen or front.listen
    local = front.local and ipaddress.ip_address(listen[0]).is_loopback
    return msgspec.structs.replace(
        front, name=asked.whose, listen=listen, local=local, routes=routes, services=services
    )


def _without_our_listener(traffic: TrafficSettings) -> TrafficSettings:
    """There, nothing takes away what callers pretend, and nobody gives a newcomer a name."""
    sticky = "" if traffic.sticky.startswith("cookie:") else traffic.sticky
    return msgspec.structs.replace(traffic, override="", override_from=[], sticky=sticky)
