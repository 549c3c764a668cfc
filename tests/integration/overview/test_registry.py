"""The one view and the wait for a commit, against a real registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from milkrun.consul import Address, Registry, keys
from milkrun.consul.presence import component
from milkrun.errors import Degraded, InputRefused, RegistryUnreachable, TimedOut
from milkrun.model import (
    CommitId,
    CommitMark,
    Refusal,
    RouterId,
    RouterReport,
    ServiceName,
    SyncReport,
    VersionName,
)
from milkrun.overview.reading import read
from milkrun.overview.waiting import until_served
from milkrun.testing.registry import embedded_registry

GOAT = ServiceName("goat")
COMMIT = CommitId("c0ffee" * 6)
ROUTER = RouterReport(
    router=RouterId("lb-goat-shed-8202"),
    service=GOAT,
    host="shed",
    listen="127.0.0.1:8202",
    stats="",
    commit=COMMIT,
    generation=3,
    applied_at=0.0,
    catalog_index=1,
)
SYNC = SyncReport(repository="/farm", branch="main", commit=COMMIT, generation=4, synced_at=0.0)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with embedded_registry(tmp_path / "registry") as address, Registry(address) as registry:
        yield registry


async def reports(registry: Registry, router: RouterReport | None, sync: SyncReport | None) -> None:
    if sync:
        await registry.put(keys.SYNC_REPORT, msgspec.json.encode(sync))
    if router:
        key = keys.router_report(router.service, router.router)
        await registry.put(key, msgspec.json.encode(router))


async def waited(registry: Registry, timeout_s: float = 10.0) -> list[RouterReport]:
    return await until_served(
        registry, GOAT, file="deploy/goat.json", commit=COMMIT, generation=4, timeout_s=timeout_s
    )


async def test_the_wait_ends_when_the_last_router_reports_the_commit(registry: Registry):
    await reports(registry, ROUTER, SYNC)
    async with asyncio.TaskGroup() as tasks:
        wait = tasks.create_task(waited(registry))
        await reports(registry, replace(ROUTER, generation=4), None)
        assert [report.generation for report in await wait] == [4]


async def test_a_late_router_is_named(registry: Registry):
    await reports(registry, ROUTER, SYNC)
    with pytest.raises(TimedOut, match="lb-goat-shed-8202, which serves generation 3"):
        await waited(registry, timeout_s=0.2)


async def test_no_router_and_no_gitsync_are_named(registry: Registry):
    with pytest.raises(TimedOut, match="gitsync, which does not report"):
        await waited(registry, timeout_s=0.2)
    await reports(registry, None, SYNC)
    with pytest.raises(TimedOut, match="a router: none reports"):
        await waited(registry, timeout_s=0.2)


async def test_a_refused_file_and_a_holding_router_end_the_wait_with_the_reason(registry: Registry):
    await reports(registry, replace(ROUTER, held=["older weights"]), SYNC)
    with pytest.raises(Degraded, match="older weights"):
        await waited(registry)
    refusal = Refusal(file="deploy/goat.json", line=2, reason="a weight is a number", commit=COMMIT)
    await reports(registry, None, replace(SYNC, refused=[refusal]))
    with pytest.raises(InputRefused, match=r"deploy/goat.json:2: a weight is a number"):
        await waited(registry)


async def test_a_silent_registry_is_told_apart_and_the_commit_is_not_lost():
    async with Registry(Address(url="http://127.0.0.1:1")) as nobody:
        with pytest.raises(RegistryUnreachable, match="is made and will be served when the registry is back"):
            await waited(nobody)


async def test_reading_tells_services_from_plumbing_and_skips_what_it_cannot_read(registry: Registry):
    await registry.register(component("goat", "shed", "127.0.0.1", 8101, {"version": "0.0.1"}))
    await registry.register(component("lb-goat", "shed", "127.0.0.1", 8202))
    await registry.register(component("milkrun-agent", "shed", "127.0.0.1", 0))
    await registry.put(
        keys.commit(ServiceName("cow")), msgspec.json.encode(CommitMark(commit=COMMIT, generation=4))
    )
    await registry.put(keys.weight(ServiceName("cow"), VersionName("1")), b"80")
    await registry.put("somebody/else", b"x")
    await registry.put(keys.agent_report("shed"), b'{"host": 3}')
    facts = await read(registry)
    assert sorted(facts.instances) == ["cow", "goat"]
    assert facts.wishes[ServiceName("cow")].weights == {"1": 80.0}
    assert [one.id for one in facts.balancers["lb-goat"]] == ["lb-goat-shed-8202"]
    assert [one.id for one in facts.parts] == ["milkrun-agent-shed"]
    assert facts.unreadable == [keys.agent_report("shed")]
