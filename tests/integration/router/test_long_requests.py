"""What ends a long request: silence, and a reload a while ago. Both by limits of the service, and both are said."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime

import pytest
from alone import Alone
from msgspec.structs import replace
from structlog.testing import capture_logs

from milkrun.model import VersionName
from milkrun.router import traffic
from milkrun.settings.service import TrafficSettings

V1 = VersionName("v1")


@pytest.fixture
async def limited(site):
    """A site whose service has short limits."""

    def make(**limits) -> None:
        site.plane = Alone(
            site.folder, "goat", listen=site.listen, stats=site.stats, traffic=TrafficSettings(**limits)
        )

    return make


async def test_a_request_on_which_nothing_moves_is_cut_off_after_the_services_own_limit(
    site, make_state, limited
):
    limited(idle_limit_s=1.0)
    app = site.app("a")
    await site.plane.start(make_state({V1: 10_000}, v1=[app.server()]))

    assert (await site.ask("/?for=5")).startswith("504")
    assert await site.ask("/?for=0.5") == "200 a"


async def test_an_open_connection_that_says_nothing_is_cut_off_too(site, make_state, limited):
    """A stream of events that began, and then is silent."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await reader.read()
        writer.close()

    limited(idle_limit_s=1.0)
    app = site.app("a")
    async with await asyncio.start_server(stream, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await site.plane.start(make_state({V1: 10_000}, v1=[_at(app.server(), port)]))
        reader, writer = await asyncio.open_connection(*site.listen)
        writer.write(b"GET / HTTP/1.1\r\nHost: goat\r\n\r\n")
        found = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    assert b"data: 1" in found


async def test_what_a_reload_left_is_told_with_its_end_and_then_cut_off_and_said(site, make_state, limited):
    limited(reload_limit_s=2.0)
    app = site.app("a")
    state = make_state({V1: 10_000}, v1=[app.server()])
    await site.plane.start(state)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(site.ask("/?for=60"))
            await site.eventually(lambda: len(site.answered()) == 1)
            before = int(time.time())
            idle = {
                f"idle{number}": [app.server()] for number in range(8)
            }  # more lanes than there are: a reload
            await site.converge(make_state({V1: 10_000}, v1=[app.server()], **idle))
            [said] = traffic.former(await site.plane.traffic())
        async with asyncio.timeout(20):
            while traffic.former(await site.plane.traffic()):
                await asyncio.sleep(0.05)
    assert site.plane.reloads == 1
    end = re.fullmatch(r"1 request from before a reload may go on until (.*) UTC", said)
    assert end
    assert before + 2 <= datetime.fromisoformat(f"{end[1]}+00:00").timestamp() <= time.time() + 2
    assert asking.result() == "closed"
    events = [log["event"] for log in logs]
    assert events.count("a worker from before a reload is gone with requests that it had") == 1


def _at(server, port):
    return replace(server, port=port)
