"""Prometheus finds a router's figures, with what users asked for in them."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import ClientConnectionError, ClientSession
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from milkrun.router import metrics_page


async def scraped(port: int) -> dict[tuple[str, ...], float]:
    """The page's samples once it is there."""
    async with asyncio.timeout(20), ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    assert answer.content_type == "text/plain"
                    return {
                        (sample.name, *sample.labels.values()): sample.value
                        for family in text_string_to_metric_families(await answer.text())
                        for sample in family.samples
                    }
            except ClientConnectionError:
                await asyncio.sleep(0.01)


async def test_the_figures_of_a_router_are_at_its_metrics_address(fleet):
    port = free_port()
    await fleet.goat("a", "0.0.1")
    await fleet.settle(metrics=f"127.0.0.1:{port}")
    async with fleet.router():
        await fleet.serves("a")
        before = (await scraped(port)).get(("milkrun_requests_total", "goat", "0.0.1"), 0)
        await fleet.answers()
        await fleet.reported(lambda report: report.versions["0.0.1"].total.requests >= before + 20)
        found = await scraped(port)

    assert found["milkrun_requests_total", "goat", "0.0.1"] >= before + 20
    assert found["milkrun_share_ratio", "goat", "0.0.1"] == 1


async def test_a_router_that_is_cut_off_says_for_how_long(fleet):
    """Its reports are gone with its session: the page is all that it can say."""
    port = free_port()

    async def silent_s() -> float:
        return (await scraped(port))["milkrun_registry_silent_seconds",]

    await fleet.goat("a", "0.0.1")
    await fleet.settle(metrics=f"127.0.0.1:{port}")
    async with fleet.router():
        await fleet.serves("a")
        await fleet.between.down()
        cut_off = await silent_s()
        async with asyncio.timeout(20):
            while (grown := await silent_s()) < cut_off + 1:
                await asyncio.sleep(0.05)
            await fleet.between.up()
            while await silent_s() >= grown:
                await asyncio.sleep(0.05)


async def test_an_address_that_is_taken_is_tried_again(monkeypatch):
    monkeypatch.setattr(metrics_page, "RETRY_S", 0.01)
    with capture_logs() as told:
        async with asyncio.TaskGroup() as tasks:
            with socket.socket() as other:
                other.bind(("127.0.0.1", 0))
                other.listen()
                port = other.getsockname()[1]
                serving = tasks.create_task(metrics_page.serve(("127.0.0.1", port), lambda: b"milk 1\n"))
                async with asyncio.timeout(10):
                    while not told:
                        await asyncio.sleep(0.01)
            assert (await scraped(port))["milk",] == 1
            serving.cancel()
    assert len(told) == 1, "said once"
