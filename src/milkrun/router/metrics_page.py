"""Where Prometheus finds a router's figures: a small HTTP server of the router itself, at `/metrics`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog
from aiohttp import web

RETRY_S = 5.0


async def serve(address: tuple[str, int], page: Callable[[], bytes]) -> None:
    """`/metrics` is served until cancelled. While the address is taken it is tried again: traffic matters more."""
    log = structlog.get_logger("router")
    host, port = address

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=page(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        said = False
        while True:
            try:
                await web.TCPSite(runner, host, port).start()
                break
            except OSError as error:
                if not said:
                    log.warning("the figures cannot be shown yet", host=host, port=port, why=error.strerror)
                said = True
            await asyncio.sleep(RETRY_S * (0.75 + random.random() / 2))
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
