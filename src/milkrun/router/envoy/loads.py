"""What Envoys elsewhere say that they carry: it is counted as the router's own is, and a drain waits for it. Pure.

Each of them reports every REPORT_S, of each endpoint, what ended since its last report and what is in progress now.
That an instance that drains has nothing there is believed of a report that began after that Envoy had followed the
wish: until then one request is assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import msgspec

from milkrun.model import Figures, InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.envoy.clusters import cluster_name, names, of_cluster
from milkrun.router.envoy.readback import Place, place_of
from milkrun.router.plane import Counted, InstanceCounted

REPORT_S = 1


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint of a cluster had: since the last report, or ever. `in_progress` is of now."""

    issued: int = 0
    requests: int = 0
    failures: int = 0
    in_progress: int = 0


Report = Mapping[str, Mapping[Place, Load]]
"""By cluster, then by endpoint. What is not in it had nothing."""


class Reporter:
    """One Envoy that reports. `follows` is the wish that it had followed before its last report began."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.follows = 0
        self.last: Report = {}
        self._followed = 0

    def hear(self, report: Report, followed: int) -> None:
        """Its next report has come; by now it has followed the wish of this number."""
        self.last = report
        self.follows, self._followed = self._followed, followed


class Loads:
    """Who reports, and what all of them had since the router started, as far as it is of what they were told."""

    def __init__(self) -> None:
        self.reporters: set[Reporter] = set()
        self._ever: dict[str, dict[Place, Load]] = {}
        self._places: dict[str, frozenset[Place]] = {}
        self._draining: dict[tuple[ServiceName, Place], int] = {}

    def told(self, told: Mapping[ServiceName, RoutingState], number: int) -> None:
        """All Envoys are to follow this, the wish of this number."""
        drains = {
            (service, place_of(server))
            for service, state in told.items()
            for server in _servers(state)
            if server.mode is Mode.DRAIN
        }
        self._draining = {each: self._draining.get(each, number) for each in drains}
        self._places = {
            cluster_name(service, version): places
            for service, state in told.items()
            for places in [frozenset(map(place_of, _servers(state)))]
            for version in names(state)
        }
        self._ever = {cluster: ever for cluster, ever in self._ever.items() if cluster in self._places}

    def hear(self, reporter: Reporter, report: Report, followed: int) -> None:
        """The Envoy's next report is counted; by now it has followed the wish of this number."""
        known = {cluster: load for cluster, load in report.items() if cluster in self._places}
        for cluster, places in known.items():
            ever = self._ever.setdefault(cluster, {})
            for place, load in places.items():
                if place in self._places[cluster]:
                    ever[place] = _grown(ever.get(place, Load()), load)
        reporter.hear(known, followed)

    def in_flight(self, service: ServiceName) -> Counter[Place]:
        """What is in progress elsewhere at each endpoint of the service, with what is only assumed."""
        found: Counter[Place] = Counter()
        for reporter in self.reporters:
            for cluster, places in reporter.last.items():
                if (of := of_cluster(cluster)) and of[0] == service:
                    found.update({place: load.in_progress for place, load in places.items()})
        for (whose, place), number in self._draining.items():
            if whose == service:
                found[place] += sum(reporter.follows < number for reporter in self.reporters)
        return found

    def counted(
        self, service: ServiceName, state: RoutingState, few: Collection[VersionName]
    ) -> Iterator[Counted]:
        """The figures of each version whose requests were reported; of these `few` also of each instance."""
        whose = {place_of(server): server.id for server in _servers(state)}
        for version in names(state):
            cluster = cluster_name(service, version)
            if (ever := self._ever.get(cluster)) is None:
                continue
            yield Counted(
                process=0,
                place=f"{cluster} elsewhere",
                version=version,
                in_flight=sum(
                    load.in_progress
                    for reporter in self.reporters
                    for load in reporter.last.get(cluster, {}).values()
                ),
                figures=Figures(
                    requests=sum(load.requests for load in ever.values()),
                    failures=sum(load.failures for load in ever.values()),
                ),
                instances=_instances(ever, whose) if version in few else None,
            )


def _instances(
    ever: Mapping[Place, Load], whose: Mapping[Place, InstanceId]
) -> dict[InstanceId, InstanceCounted]:
    return {
        whose[place]: InstanceCounted(
            tried=max(load.issued, load.requests), requests=load.requests, failures=load.failures
        )
        for place, load in ever.items()
        if place in whose
    }


def _servers(state: RoutingState) -> Iterator[Server]:
    return (server for servers in state.versions.values() for server in servers.values())


def _grown(ever: Load, load: Load) -> Load:
    return Load(
        issued=ever.issued + load.issued,
        requests=ever.requests + load.requests,
        failures=ever.failures + load.failures,
    )
