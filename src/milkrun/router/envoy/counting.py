"""What Envoy counts for each version: its cluster's counters as figures. Pure.

Envoy times every answer itself, in whole milliseconds; its buckets are told to be ours (`BUCKETS_MS`). A request that a
version could not serve and another one did counts for the version whose share it was, and for the instance that did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec

from milkrun import latency
from milkrun.errors import DataPlaneError
from milkrun.model import Figures, InstanceId, ServiceName, VersionName
from milkrun.router.envoy.clusters import cluster_name
from milkrun.router.envoy.readback import Clusters, Host
from milkrun.router.plane import Counted, InstanceCounted

BUCKETS_MS = sorted({bound / 1000 for bound in latency.BOUNDS_US if bound >= 1000})
TIMED = "upstream_rq_time"
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_COUNTS = (
    *("upstream_rq_active", *(f"upstream_rq_{name}" for name in _CLASSES)),
    *("upstream_cx_total", "upstream_cx_active", "upstream_cx_connect_fail"),
    *("upstream_cx_rx_bytes_total", "upstream_cx_tx_bytes_total"),
)


def question(service: ServiceName) -> str:
    """What to ask Envoy's admin."""
    names = "|".join((*_COUNTS, TIMED))
    return f"/stats?format=json&histogram_buckets=disjoint&filter=^cluster\\.{service}/.*\\.({names})$"


def counted(
    body: bytes, service: ServiceName, versions: Iterable[VersionName], process: int, *, tcp: bool
) -> list[Counted]:
    """The figures of each version's cluster, as far as it has one. Only known names are looked for: a version's
    name may end like the name of a counter.
    """
    try:
        stats = dict(_each(msgspec.json.decode(body)["stats"]))
        return [
            _place(name, version, stats, process, tcp=tcp)
            for version in sorted(versions)
            if f"cluster.{(name := cluster_name(service, version))}.{_COUNTS[0]}" in stats
        ]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataPlaneError(f"Envoy's counters cannot be read: {error!r}") from error


def _each(stats: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for stat in stats:
        if "histograms" in stat:
            yield from ((histogram["name"], histogram["buckets"]) for histogram in stat["histograms"])
        else:
            yield stat["name"], stat["value"]


def _place(place: str, version: VersionName, stats: dict[str, Any], process: int, *, tcp: bool) -> Counted:
    def count(name: str) -> int:
        return int(stats.get(f"cluster.{place}.{name}", 0))

    answers = {name: number for name in _CLASSES if (number := count(f"upstream_rq_{name}"))}
    return Counted(
        process=process,
        place=place,
        version=version,
        in_flight=count("upstream_cx_active") if tcp else count("upstream_rq_active"),
        figures=Figures(
            requests=count("upstream_cx_total") if tcp else sum(answers.values()),
            failures=count("upstream_cx_connect_fail") if tcp else answers.get("5xx", 0),
            answers=answers,
            bytes_in=count("upstream_cx_tx_bytes_total"),
            bytes_out=count("upstream_cx_rx_bytes_total"),
            latency={} if tcp else _histogram(stats.get(f"cluster.{place}.{TIMED}", [])),
        ),
    )


def with_each(
    counted: Iterable[Counted], there: Clusters, few: Collection[VersionName], *, tcp: bool
) -> list[Counted]:
    """The figures, with those of each host in the clusters of these versions."""
    return [
        msgspec.structs.replace(
            one,
            instances={
                InstanceId(host.name): _instance(host, tcp=tcp)
                for host in there.get(one.version, {}).values()
            },
        )
        if one.version is not None and one.version in few
        else one
        for one in counted
    ]


def _instance(host: Host, *, tcp: bool) -> InstanceCounted:
    """What a host had in one cluster. A connection that failed is no request of it, and a failure all the same."""
    stats = host.stats
    failed = stats.get("cx_connect_fail", 0) if tcp else stats.get("rq_error", 0)
    ended = stats.get("cx_total", 0) if tcp else stats.get("rq_success", 0) + failed
    tried = ended if tcp else max(ended, stats.get("rq_total", 0))
    return InstanceCounted(tried=tried, requests=ended, failures=failed)


def _histogram(buckets: list[dict[str, float]]) -> dict[int, int]:
    """Envoy's buckets as ours, of which each ends where one of Envoy's does."""
    found: dict[int, int] = {}
    for each in buckets:
        if count := int(each["cumulative"]):
            number = latency.bucket(round(each["upper_bound"] * 1000) - 1)
            found[number] = found.get(number, 0) + count
    return found
