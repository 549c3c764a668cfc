"""What `milkrun.toml` says: the environment's registry, agents and routers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from milkrun import grammar
from milkrun.errors import InputRefused
from milkrun.model import CommitMark, branch_name, endpoint, host_port, service_name
from milkrun.settings.check_allow import network
from milkrun.settings.toml import Document
from milkrun.settings.toml_lines import Path

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_ROUTE_PATH = re.compile(f"/|{grammar.SEGMENTS}")
_FOLDER = re.compile(r"[^\x00-\x1f\x7f]{0,400}")
_METHOD = re.compile(grammar.METHOD)
_HEADER = re.compile(grammar.HEADER)
_HEADER_VALUE = re.compile(grammar.HEADER_VALUE)


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the registry listens. `HOST:PORT`; DNS is off where `dns` is empty.

    `srv_weight_scale` is what the weights in SRV records are multiplied by: 256 where HAProxy reads them. `acl`
    says who may do what without a token: everyone everything (open), this machine read (default), nobody
    anything (closed). `check_allow` are the networks that its health checks may reach, besides a service's own
    address and loopback. With `tls_cert` and `tls_key` it speaks HTTPS, with `tls_ca` only with those that it signed:
    files on the registry's host, relative to the environment's folder. `allow_host` are names that it answers to
    besides its own.
    """

    http: str = "127.0.0.1:8500"
    dns: str = ""
    srv_weight_scale: int = 1
    acl: Literal["open", "default", "closed"] = "default"
    check_allow: list[str] = []
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    allow_host: list[str] = []

    @property
    def url(self) -> str:
        """Where commands and parts find it."""
        return f"{'https' if self.tls_cert else 'http'}://{self.http}"


class GitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which branch of the environment's repository is the wish; `push` is the URL that commits of rollouts go to."""

    branch: str = "main"
    push: str = ""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where instances listen: the host's IP address and the first and last port they may take.

    With `docker` the containers that somebody else started are registered by their labels.
    """

    address: str = "127.0.0.1"
    ports: tuple[int, int] = (8101, 8199)
    docker: bool = False


class RouteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests for this host, below this path, with one of these methods and all these headers are the service's.

    What is left empty takes any. With `strip` the instance sees the path without `path`.
    """

    service: str
    host: str = ""
    path: str = "/"
    methods: list[str] = []
    headers: dict[str, str] = {}
    strip: bool = False


class RouterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One router: where it listens, where its stats page is, and what it stands before: exactly one of

    - `service`: a load balancer of this service;
    - `sidecar`: every service of the environment, each below `/<service>/`;
    - `routes`: an edge; the first route that fits a request takes it.

    `data_plane` is the program that carries its traffic.

    With `certificates`, a folder of PEM files (each with its key; relative to the environment's folder on the
    router's host), it listens by TLS. What requests from the networks in `trust` say of who called is believed.
    At `metrics` Prometheus finds its figures.
    """

    listen: str
    stats: str
    service: str = ""
    sidecar: bool = False
    data_plane: Literal["haproxy", "envoy"] = "haproxy"
    routes: list[RouteSettings] = []
    certificates: str = ""
    trust: list[str] = []
    metrics: str = ""

    def names(self, services: Iterable[str]) -> list[str]:
        """The services that it stands before, of an environment with these."""
        if self.sidecar:
            return sorted(services)
        return [self.service] if self.service else sorted({route.service for route in self.routes})


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `milkrun.toml`. `routers` is by name, which is also their name in the catalog (`lb-goat`)."""

    name: str
    registry: RegistrySettings = RegistrySettings()
    git: GitSettings = GitSettings()
    agent: AgentSettings = AgentSettings()
    routers: dict[str, RouterSettings] = {}


class PublishedEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """`milkrun.toml` in the KV store, with the commit it came from."""

    mark: CommitMark
    settings: Environment


def load(data: bytes, file: str) -> Environment:
    """The settings that a `milkrun.toml` states; raises InputRefused with the file and the line."""
    document = Document(data, Environment, file)
    settings = document.value
    document.check(("name",), service_name, settings.name)
    document.check(("git", "branch"), branch_name, settings.git.branch)
    document.check(("agent", "address"), lambda text: endpoint(text, 1), settings.agent.address)
    first, last = settings.agent.ports
    document.require(
        ("agent", "ports"),
        1 <= first <= last <= 65535,
        f"{first} to {last} is not a range of ports: the first and the last one, from 1 to 65535",
    )
    taken: dict[tuple[str, int], str] = {}
    _listens(document, taken, ("registry", "http"), settings.registry.http)
    if settings.registry.dns:
        _listens(document, taken, ("registry", "dns"), settings.registry.dns)
    document.require(
        ("registry", "srv_weight_scale"),
        1 <= settings.registry.srv_weight_scale <= 65535,
        "what SRV weights are multiplied by is a number from 1 to 65535; 256 is right for HAProxy",
    )
    for place, text in enumerate(settings.registry.check_allow):
        document.check(("registry", "check_allow", place), network, text)
    _speaks(document, settings.registry)
    for name, router in settings.routers.items():
        document.check(("routers", name), service_name, name)
        document.require(
            ("routers", name), name != "plan", "`milkrun router plan` shows a plan: name it otherwise"
        )
        _stands(document, name, router)
        _listens(document, taken, ("routers", name, "listen"), router.listen)
        _listens(document, taken, ("routers", name, "stats"), router.stats)
        if router.metrics:
            _listens(document, taken, ("routers", name, "metrics"), router.metrics)
    return settings


def _speaks(document: Document[Environment], registry: RegistrySettings) -> None:
    """Refuses half of what TLS takes, and names that are none."""
    for key in ("tls_cert", "tls_key", "tls_ca"):
        document.require(
            ("registry", key), bool(_FOLDER.fullmatch(getattr(registry, key))), "is not the name of a file"
        )
    both = "TLS takes a certificate and its key: give both `tls_cert` and `tls_key`"
    there = "tls_cert" if registry.tls_cert else "tls_key"
    document.require(("registry", there), bool(registry.tls_cert) == bool(registry.tls_key), both)
    document.require(("registry", "tls_ca"), bool(registry.tls_cert) or not registry.tls_ca, both)
    for place, text in enumerate(registry.allow_host):
        document.require(
            ("registry", "allow_host", place), bool(_HOST.fullmatch(text)), f"{text!r} is not a host's name"
        )


def _stands(document: Document[Environment], name: str, router: RouterSettings) -> None:
    """Refuses a router that stands nowhere, or in two places, and routes that can take no request."""
    here: Path = ("routers", name)
    document.require(
        here,
        bool(router.service) + router.sidecar + bool(router.routes) == 1,
        "needs exactly one of `service` (a load balancer), `sidecar = true` and `routes` (an edge)",
    )
    if router.service:
        document.check((*here, "service"), service_name, router.service)
    document.require(
        (*here, "certificates"), bool(_FOLDER.fullmatch(router.certificates)), "is not the name of a folder"
    )
    for number, text in enumerate(router.trust):
        document.check((*here, "trust", number), _network, text)
    everything = False
    for number, route in enumerate(router.routes):
        at: Path = (*here, "routes", number)
        document.require(at, not everything, "can never fit: a route before it takes everything")
        everything = not (route.host or route.methods or route.headers or route.path != "/")
        document.check((*at, "service"), service_name, route.service)
        document.require(
            (*at, "host"), not route.host or bool(_HOST.fullmatch(route.host)), "is not a host's name"
        )
        document.require(
            (*at, "path"), bool(_ROUTE_PATH.fullmatch(route.path)), "is not a path such as `/shop`"
        )
        document.require(
            (*at, "path"),
            not {".", ".."} & set(route.path.split("/")),
            "has a segment of dots: no request's path has one when it is routed",
        )
        for method in route.methods:
            document.require((*at, "methods"), bool(_METHOD.fullmatch(method)), f"{method!r} is no method")
        for header, value in route.headers.items():
            document.require((*at, "headers"), bool(_HEADER.fullmatch(header)), f"{header!r} is no header")
            document.require(
                (*at, "headers"), bool(_HEADER_VALUE.fullmatch(value)), f"{value!r} is no header's value"
            )


def _network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise InputRefused(
            f"{text[:80]!r} is not a network, from its first address on",
            remedy="write one such as 10.1.0.0/16",
        ) from error


def _listens(
    document: Document[Environment], taken: dict[tuple[str, int], str], path: Path, text: str
) -> None:
    """Refuses what is not HOST:PORT, and an address that another part of the environment listens on."""
    document.check(path, host_port, text)
    where = ".".join(str(part) for part in path)
    other = taken.setdefault(host_port(text), where)
    document.require(path, other == where, f"{text} is the address of {other} already")
