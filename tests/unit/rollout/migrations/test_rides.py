"""What a backfill hears of the clients: the latency of the old version's last seconds, over all routers."""

from __future__ import annotations

from types import SimpleNamespace

from milkrun.model import Figures, RouterId, RouterReport, ServiceName, VersionName, VersionTraffic
from milkrun.rollout.migrations import rides

OLD, NEW = VersionName("1.0"), VersionName("2.0")
FAST, SLOW = 60, 120
"""Buckets: of about a millisecond, and of more than a hundred."""


def report(router: str, **buckets: dict[int, int]) -> RouterReport:
    def traffic(latency: dict[int, int]) -> VersionTraffic:
        counted = Figures(requests=sum(latency.values()), latency=latency)
        return VersionTraffic(share=0, total=counted, window=counted)

    return RouterReport(
        router=RouterId(router), service=ServiceName("ledger"), host="h", listen="", stats="", commit=None,
        generation=1, applied_at=0.0, catalog_index=1, since=0.0,
        versions={OLD: traffic(buckets["old"]), NEW: traffic(buckets["new"])},
    )  # fmt: skip


async def test_it_hears_how_long_clients_of_the_old_version_waited_lately():
    now = [report("a", old={FAST: 1000}, new={}), report("b", old={FAST: 1000}, new={})]
    ask = rides._latency(SimpleNamespace(stable=OLD), lambda: now)
    assert await ask() is None  # nobody was served since it looks
    now = [report("a", old={FAST: 1100}, new={SLOW: 500}), report("b", old={FAST: 1000}, new={})]
    quick = await ask()
    assert quick
    now = [report("a", old={FAST: 1100, SLOW: 50}, new={SLOW: 500}), report("b", old={FAST: 1000}, new={})]
    slow = await ask()
    assert slow
    assert slow > 10 * quick


async def test_of_a_service_that_nobody_uses_it_hears_nothing():
    assert await rides._latency(SimpleNamespace(stable=None), list)() is None
