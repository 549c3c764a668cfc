"""A router's figures in Prometheus' text format, from what it last reported. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from milkrun import latency
from milkrun.model import SHARE_SLOTS, Figures, RouterReport

BOUNDS_US = tuple(
    round(bound * 10**decade) for decade in range(2, 8) for bound in (1, 2, 5) if bound * 10**decade <= 5e7
)
"""Coarser than what is counted, and exact sums of it: 1, 2 and 5 of every decade, from 0.1 ms to 50 s."""


def page(reports: Iterable[RouterReport], now: float, *, silent_s: float) -> bytes:
    """The page that Prometheus scrapes, at `now` (seconds since 1970). Counters run from the router's start.

    The registry last answered the router `silent_s` ago: one that is cut off reports nothing there, but here.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reports(list(reports), now, silent_s))
    return generate_latest(registry)


class _Reports:
    def __init__(self, reports: list[RouterReport], now: float, silent_s: float) -> None:
        self._reports, self._now, self._silent_s = reports, now, silent_s

    def collect(self) -> Iterator[Metric]:
        yield from _versions(self._reports)
        yield from _router(self._reports, self._now)
        yield GaugeMetricFamily(
            "milkrun_registry_silent_seconds",
            "Since the registry last answered; what is served may be as old, and git's newer weights not followed",
            value=self._silent_s,
        )


def _versions(reports: list[RouterReport]) -> Iterator[Metric]:
    labels = ["service", "version"]
    share = GaugeMetricFamily("milkrun_share_ratio", "The version's share of the requests", labels=labels)
    flying = GaugeMetricFamily("milkrun_requests_in_flight", "Requests under way", labels=labels)
    requests = CounterMetricFamily("milkrun_requests", "Requests that have ended", labels=labels)
    failures = CounterMetricFamily("milkrun_failures", "Those that failed", labels=labels)
    answers = CounterMetricFamily("milkrun_answers", "Answers by class", labels=[*labels, "class"])
    incoming = CounterMetricFamily("milkrun_request_bytes", "Bytes from clients", labels=labels)
    outgoing = CounterMetricFamily("milkrun_answer_bytes", "Bytes to clients", labels=labels)
    took = HistogramMetricFamily(
        "milkrun_answer_seconds",
        "From a request's arrival to the head of an instance's answer; a sample under load, sum within 5 %",
        labels=labels,
    )
    for report in reports:
        for version, traffic in report.versions.items():
            values = [report.service, version]
            total = traffic.total
            share.add_metric(values, traffic.share / SHARE_SLOTS)
            flying.add_metric(values, traffic.in_flight)
            requests.add_metric(values, total.requests)
            failures.add_metric(values, total.failures)
            incoming.add_metric(values, total.bytes_in)
            outgoing.add_metric(values, total.bytes_out)
            for outcome, count in total.answers.items():
                answers.add_metric([*values, outcome], count)
            took.add_metric(values, _buckets(total), latency.sum_s(total.latency))
    yield from (share, flying, requests, failures, answers, incoming, outgoing, took)


def _buckets(total: Figures) -> list[tuple[str, float]]:
    counted = [(str(bound / 1e6), float(latency.quicker(total.latency, bound))) for bound in BOUNDS_US]
    return [*counted, ("+Inf", float(sum(total.latency.values())))]


def _router(reports: list[RouterReport], now: float) -> Iterator[Metric]:
    unequal = GaugeMetricFamily(
        "milkrun_unequal_seconds",
        "For how long the data plane has differed from the wish; 0 when it does not",
        labels=["service"],
    )
    generation = GaugeMetricFamily(
        "milkrun_generation", "How many commits the served state has", labels=["service"]
    )
    alarms = GaugeMetricFamily("milkrun_alarms", "What a person should know", labels=["service"])
    for report in reports:
        since = report.unequal_since
        unequal.add_metric([report.service], max(0.0, now - since) if since else 0.0)
        generation.add_metric([report.service], report.generation)
        alarms.add_metric([report.service], len(report.alarms) + len(report.held))
    reloads = CounterMetricFamily("milkrun_reloads", "Reloads of the data plane since it was started")
    reloads.add_metric([], max((report.reloads for report in reports), default=0))
    yield from (unequal, generation, alarms, reloads)
