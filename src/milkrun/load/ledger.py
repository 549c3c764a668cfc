"""The ledger of a load run: every request is written down when it is due and closed once. Pure.

What happens comes in as calls with times in seconds (any clock, always the same one); `figures` reads it.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from milkrun.load import labels
from milkrun.load.figures import Figures, Latency, Plan, VersionShare
from milkrun.load.histogram import Histogram
from milkrun.load.labels import Label

_KINDS_AT_MOST = 10_000
_REASONS_AT_MOST = 100
_OTHERS = "(others)"
_K = TypeVar("_K")


class Ledger:
    """Who asked for what, and who answered. `run` makes this run's ids unlike any other's."""

    def __init__(self, run: str) -> None:
        self._prefix = f"load-{run}-"
        self._sent = 0
        self._open: dict[str, float] = {}
        self._answered = 0
        self._duplicated = 0
        self._failures: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._labels: Counter[Label] = Counter()
        self._latency_ns = Histogram()
        self._late_s = 0.0

    @property
    def in_flight(self) -> int:
        """How many requests are neither answered nor failed."""
        return len(self._open)

    def sent(self, due: float) -> str:
        """The id of a new request, which was to be sent at `due`."""
        request = f"{self._prefix}{self._sent}"
        self._sent += 1
        self._open[request] = due
        return request

    def started(self, request: str, at: float) -> None:
        """The client began to send the request; later than it was due counts as the client's lateness."""
        self._late_s = max(self._late_s, at - self._open.get(request, at))

    def answered(self, request: str, at: float, status: int, body: bytes, named: str = "") -> None:
        """A complete answer came. `named` is the id in its X-Request-Id header, empty when it has none.

        Status 400 and above is a failure. So is an answer that names another request of this or another run
        (in its header, or as `request` in its JSON): it counts as duplicated too.
        """
        self._statuses[status] += 1
        in_body, found = labels.read(body)
        if request not in self._open:
            self._duplicated += 1
        elif any(name.startswith("load-") and name != request for name in (named, in_body)):
            self._duplicated += 1
            self._fail(request, "the answer names another request")
        elif status >= 400:
            self._fail(request, f"HTTP {status}")
        else:
            self._latency_ns.record(round((at - self._open.pop(request)) * 1e9))
            self._answered += 1
            for label in found:
                _count(self._labels, label, Label(_OTHERS, _OTHERS, ""), _KINDS_AT_MOST)

    def failed(self, request: str, why: str) -> None:
        """The request got no complete answer. One that is closed already stays as it is."""
        if request in self._open:
            self._fail(request, why)

    def figures(self, plan: Plan, elapsed_s: float, *, interrupted: bool = False) -> Figures:
        """What is in the ledger `elapsed_s` after the first request was due."""
        return Figures(
            plan=plan,
            elapsed_s=elapsed_s,
            sent=self._sent,
            answered=self._answered,
            failed=self._failures.total(),
            in_flight=len(self._open),
            duplicated=self._duplicated,
            failures=dict(self._failures.most_common()),
            statuses=dict(sorted(self._statuses.items())),
            shares=self._shares(),
            latency=Latency(
                p50_ms=self._latency_ns.quantile(0.5) / 1e6,
                p90_ms=self._latency_ns.quantile(0.9) / 1e6,
                p99_ms=self._latency_ns.quantile(0.99) / 1e6,
                max_ms=self._latency_ns.highest / 1e6,
            ),
            achieved_rate=self._answered / elapsed_s if elapsed_s > 0 else 0.0,
            late_ms=self._late_s * 1e3,
            interrupted=interrupted,
        )

    def _fail(self, request: str, why: str) -> None:
        del self._open[request]
        _count(self._failures, why, _OTHERS, _REASONS_AT_MOST)

    def _shares(self) -> list[VersionShare]:
        services: Counter[str] = Counter()
        versions: Counter[tuple[str, str]] = Counter()
        instances: dict[tuple[str, str], dict[str, int]] = {}
        for label, count in sorted(self._labels.items()):
            pair = (label.service, label.version)
            services[label.service] += count
            versions[pair] += count
            by_instance = instances.setdefault(pair, {})
            if label.instance:
                by_instance[label.instance] = count
        return [
            VersionShare(
                service=service,
                version=version,
                answered=count,
                share=count / services[service],
                instances=instances[service, version],
            )
            for (service, version), count in versions.items()
        ]


def _count(counter: Counter[_K], key: _K, others: _K, at_most: int) -> None:
    """One more of `key`, or of `others` when that many kinds are known already: memory stays bounded."""
    counter[key if key in counter or len(counter) < at_most else others] += 1
