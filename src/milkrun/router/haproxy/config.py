"""HAProxy's configuration file, written from values. Pure. What belongs to one service is in section.py.

The file names its sockets and maps relative to its own folder, which is HAProxy's working directory.

- `idle-close-on-response`: without it each reload costs keep-alive clients errors (research: M1).
- `retries 30`: a killed instance's idle connections end one after the other, and each try may be given one of
  them. Three tries lost requests on a machine under load (1 of 4,000 around a kill); a refused connection ends the
  tries on that server at once.
- `no strict-limits`: with fewer descriptors than it would like (one for each server that is probed) HAProxy serves and
  says so; it would not start otherwise, and nothing would serve.
- `tune.memory.hot-size`: what a thread keeps of memory that was in use a moment ago. A request that may be tried again
  has a buffer more, and with the default of 512 kB the buffers of 64 requests go to and fro between the threads: 5 % of
  the processor (benchmarks/peers.py).
- `timeout connect` is also the pause before the same server is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

import msgspec

from milkrun.model import ServiceName, VersionName
from milkrun.router import ejection
from milkrun.router.desired import RoutingState
from milkrun.router.front import Front, Route
from milkrun.router.haproxy import choice, encode, entrance, mirror, routes, section
from milkrun.router.haproxy.section import Section

ADMIN_SOCKET = "admin.sock"
MASTER_SOCKET = "master.sock"
CONFIG_FILE = "haproxy.cfg"


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What only a reload can change: addresses, routes, certificates, services and the number of their lanes.

    `certificates` are digests, the first for who asks for no name that is there; with any, it listens by TLS. `form`
    is another one where another release of Milkrun would write the same things in another way.
    """

    name: str
    listen: tuple[str, int]
    stats: tuple[str, int]
    routes: tuple[Route, ...]
    sections: dict[ServiceName, Section]
    local: bool = False
    trust: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    form: str = ""


def form(front: Front) -> str:
    """A digest of the front's file without any instance: what a release writes in another way takes a reload.

    Its own addresses are left out: they may be ones that cannot be had yet.
    """
    certificates = ("0" * 64,) if front.certificates else ()
    anywhere = msgspec.structs.replace(front, listen=("127.0.0.1", 1), stats=("127.0.0.1", 2))
    empty = layout(anywhere, certificates, dict.fromkeys(front.services, 1))
    return sha256(render(empty, {}, {}).encode()).hexdigest()


def layout(
    front: Front, certificates: tuple[str, ...], lanes: Mapping[ServiceName, int], form: str = ""
) -> Layout:
    """The layout of a front with these certificates, whose services have so many lanes."""
    return Layout(
        name=front.name,
        listen=front.listen,
        stats=front.stats,
        routes=front.routes,
        local=front.local,
        trust=front.trust,
        certificates=certificates,
        form=form,
        sections={
            service: Section(lanes=lanes[service], traffic=ejection.as_told(traffic))
            for service, traffic in sorted(front.services.items())
        },
    )


def render(
    whole: Layout,
    lanes: Mapping[ServiceName, Mapping[VersionName, int]],
    states: Mapping[ServiceName, RoutingState],
) -> str:
    """The whole file. Started from it, HAProxy serves the services as `states` say; one that they lack has nobody."""
    lines = [*_head(whole), *_front(whole), *_stats(whole)]
    for service, each in whole.sections.items():
        lines += section.render(service, each, lanes.get(service, {}), states.get(service, RoutingState()))
    return "\n".join(lines) + "\n"


def reload_limit_s(whole: Layout) -> float:
    """How long a worker that a reload made a former one may have requests: HAProxy knows one limit for all."""
    return max((each.traffic.reload_limit_s for each in whole.sections.values()), default=600.0)


def _head(whole: Layout) -> Iterator[str]:
    yield f"""\
# Written by milkrun's router. It always equals what runs: edits here are overwritten.
global
  stats socket unix@{ADMIN_SOCKET} mode 600 level admin
  stats maxconn 32
  stats timeout 2m
  .if version_atleast(2.7)
  tune.memory.hot-size 4194304
  .endif
  no strict-limits
  hard-stop-after {encode.milliseconds(reload_limit_s(whole))}
  mworker-max-reloads 8"""
    if mirror.needed(each.traffic for each in whole.sections.values()):
        yield from mirror.head()
    idle_s = max((each.traffic.idle_limit_s for each in whole.sections.values()), default=60.0)
    yield f"""
defaults
  mode http
  timeout connect 500ms
  timeout http-request 10s
  timeout http-keep-alive 30s
  timeout queue 5s
  timeout client {encode.milliseconds(idle_s)}
  timeout server {encode.milliseconds(idle_s)}
  retries 30
  option redispatch 1
  retry-on conn-failure empty-response
  option idle-close-on-response"""


def _front(whole: Layout) -> Iterator[str]:
    one = _only(whole)
    http = one is None or section.mode(whole.sections[one].traffic) == "http"
    yield f"""
frontend {whole.name}
  description requests, split by service and version
  mode {"http" if http else "tcp"}"""
    yield entrance.bind(whole.listen, tls=bool(whole.certificates), http=http)
    if http:
        yield "  http-request disable-l7-retry unless METH_GET"
        if one is None or whole.sections[one].traffic.path:
            yield from entrance.plain_paths()
        if not whole.local:
            yield from entrance.believed(whole.trust, tls=bool(whole.certificates))
    if one is None:
        yield from routes.render(whole.routes, {name: each.traffic for name, each in whole.sections.items()})
    else:
        yield from choice.rules(one, whole.sections[one].traffic)
        yield from choice.backends(one, whole.sections[one].traffic)
        yield f"  default_backend {one}.none"


def _only(whole: Layout) -> ServiceName | None:
    """The service that takes every request, when there is one."""
    return whole.routes[0].service if whole.routes and whole.routes[0].everything else None


def _stats(whole: Layout) -> Iterator[str]:
    yield f"""
frontend {whole.name}.stats
  bind {encode.bind(*whole.stats)}
  http-request redirect location /monitor if {{ path / }}
  stats enable
  stats uri /monitor
  stats refresh 5s
  stats show-legends
  stats show-desc milkrun: {whole.name}"""
