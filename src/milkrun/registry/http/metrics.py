"""/v1/agent/metrics: what this registry holds, as Consul's JSON or for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.engine import Engine
from milkrun.registry.http.asking import require
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route
from milkrun.registry.nouns import STATUSES

PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


class Gauge(msgspec.Struct, frozen=True, rename="pascal"):
    """One figure, as it stands now."""

    name: str
    value: int
    labels: dict[str, str] = {}


async def metrics(engine: Engine, request: Request) -> Reply:
    """The figures of this moment. There are no counters or samples: the gauges are all."""
    require(engine, request, Resource.AGENT, engine.own.node, Level.READ)
    gauges = list(_gauges(engine))
    if request.one("format") == "prometheus":
        shown = CollectorRegistry()
        shown.register(_Shown(gauges))
        return Reply(200, generate_latest(shown), PROMETHEUS)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
    return Reply.json({"Timestamp": now, "Gauges": gauges, "Points": [], "Counters": [], "Samples": []})


class _Shown(Collector):
    def __init__(self, gauges: list[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family a name."""
        by_name: dict[str, list[Gauge]] = {}
        for gauge in self._gauges:
            by_name.setdefault(gauge.name, []).append(gauge)
        for name, gauges in by_name.items():
            labels = sorted(gauges[0].labels)
            family = GaugeMetricFamily(name.replace(".", "_"), name, labels=labels)
            for gauge in gauges:
                family.add_metric([gauge.labels[label] for label in labels], gauge.value)
            yield family


def _gauges(engine: Engine) -> Iterator[Gauge]:
    machine = engine.machine
    catalog = machine.catalog
    yield Gauge("consul.raft.applied_index", machine.ledger.index)
    yield Gauge("consul.session_ttl.active", sum(1 for each in machine.sessions.live.values() if each.ttl))
    yield Gauge("consul.state.kv_entries", machine.kv.count)
    yield Gauge("consul.state.nodes", len(catalog.nodes))
    yield Gauge("consul.state.services", len(catalog.named))
    yield Gauge("consul.state.service_instances", sum(map(len, catalog.services.values())))
    yield Gauge("milkrun.registry.sessions", len(machine.sessions.live))
    yield Gauge("milkrun.registry.watchers", len(engine.parked))
    standing = Counter(check.status for checks in catalog.checks.values() for check in checks.values())
    for status in STATUSES:
        yield Gauge("milkrun.registry.checks", standing[status], {"status": status})


ROUTES = (Route("GET", "/v1/agent/metrics", metrics, "agent", "read"),)
