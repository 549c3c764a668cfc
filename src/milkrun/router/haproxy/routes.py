"""Which route takes a request, as HAProxy's rules. Pure.

`txn.route` is the number of the route, decided before the path is rewritten; `txn.service` is whose it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from milkrun.model import ServiceName
from milkrun.router.front import Route
from milkrun.router.haproxy import choice, encode
from milkrun.settings.service import TrafficSettings


def render(routes: Iterable[Route], services: Mapping[ServiceName, TrafficSettings]) -> Iterator[str]:
    """The first route that fits a request takes it, and its service says which lane. Nobody: 404."""
    for number, route in enumerate(routes):
        yield from _routed(number, route)
    fits = {service: f"{{ var(txn.service) -m str {encode.service(service)} }}" for service in services}
    for service, traffic in services.items():
        yield from choice.rules(service, traffic, fits[service])
    for service, traffic in services.items():
        yield from choice.backends(service, traffic, fits[service])
    yield "  default_backend nowhere"
    yield """
backend nowhere
  description no route fits
  http-request return status 404 content-type text/plain string "no route fits this request\\n\""""


def _routed(number: int, route: Route) -> Iterator[str]:
    """The request is the route's when no earlier one took it. A path is a prefix of whole segments."""
    conditions = ["!{ var(txn.route) -m found }"]
    path = encode.path(route.path) if route.path != "/" else ""
    if path:
        yield f"  acl path{number} path -m str {path}"
        yield f"  acl path{number} path -m beg {path}/"
        conditions.append(f"path{number}")
    if route.host:  # `host_only` takes the port away; a name may end with the root's dot
        conditions.append(f"{{ req.hdr(host),host_only,rtrim(.) -m str -i {encode.host(route.host)} }}")
    if route.methods:
        conditions.append(f"{{ method {' '.join(map(encode.method, route.methods))} }}")
    for name, value in route.headers:
        conditions.append(f"{{ req.hdr({encode.header(name)}) -m str -- {encode.header_value(value)} }}")
    yield f"  http-request set-var(txn.route) int({number}) if {' '.join(conditions)}"
    taken = f"{{ var(txn.route) -m int {number} }}"
    yield f"  http-request set-var(txn.service) str({encode.service(route.service)}) if {taken}"
    if path and route.strip:
        yield f"  http-request set-header x-forwarded-prefix {path} if {taken}"
        yield f"  http-request set-path / if {taken} {{ path -m str {path} }}"
        yield f"  http-request set-path %[path,bytes({len(path)})] if {taken} {{ path -m beg {path}/ }}"
