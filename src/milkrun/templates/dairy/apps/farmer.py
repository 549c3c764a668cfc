"""A farmer: takes a request for milk, milks a goat, and hands over a bottle labelled with both.

It finds the goats' load balancer in the registry under the name `lb-goat`, not in settings of its own, and
keeps the last address it heard: a dead registry stops no milk.

    GET /milk                   {"farmer": {...}, "goat": {...}, "request": ...}, or 503 and why there is none
    GET /health                 200 while this farmer works; it says nothing about goats
    GET /health/dependencies    200 while a goat can be reached, else 503 and why

The variables are those of goat.py, and CONSUL_HTTP_ADDR for the registry.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

STOP_LIMIT_S = 8
MILKING_LIMIT_S = 5.0
KEPT_IDLE_S = 4.0
"""Idle connections are closed by us, before the load balancer does it just as we send a request."""


class NoMilk(Exception):
    """No goat can be milked. Says why."""


class Farmer:
    """One farmer: what it answers, and where it knows goats to be."""

    http: aiohttp.ClientSession

    def __init__(self) -> None:
        self.name = {key: os.environ[f"MILKRUN_{key.upper()}"] for key in ("service", "version", "instance")}
        registry = os.environ.get("CONSUL_HTTP_ADDR", "127.0.0.1:8500")
        self.registry = URL(registry if "://" in registry else f"http://{registry}")
        self.goats: list[URL] = []
        folder = os.environ.get("DAIRY_LEDGER")
        path = Path(folder, f"{self.name['instance']}.log") if folder else Path(os.devnull)
        self.ledger = path.open("a", buffering=1)

    async def milk(self, request: web.Request) -> web.Response:
        """A bottle with the farmer's and the goat's name on it."""
        request_id = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        try:
            bottle = await self.ask_goat("/milk", MILKING_LIMIT_S, request_id)
        except NoMilk as why:
            answer = {"farmer": self.name, "error": str(why), "request": request_id}
            return web.json_response(answer, status=503)
        self.ledger.write(f"{request_id}\n")
        return web.json_response({"farmer": self.name, "goat": bottle["goat"], "request": request_id})

    async def health(self, _: web.Request) -> web.Response:
        """Whether this farmer works. Were it to speak of goats, one sick goat would take all farmers out."""
        return web.json_response({"status": "ok"})

    async def dependencies(self, _: web.Request) -> web.Response:
        """Whether a goat can be reached."""
        try:
            await self.ask_goat("/health", 1.0, uuid.uuid4().hex)
        except NoMilk as why:
            return web.json_response({"lb-goat": str(why)}, status=503)
        return web.json_response({"lb-goat": "ok"})

    async def ask_goat(self, path: str, limit_s: float, request_id: str) -> dict[str, Any]:
        """What a goat answers, through the load balancer."""
        if not self.goats:
            raise NoMilk("no lb-goat is in the registry yet")
        url = random.choice(self.goats).with_path(path)
        limit = aiohttp.ClientTimeout(total=limit_s)
        try:
            async with self.http.get(url, headers={"X-Request-Id": request_id}, timeout=limit) as answer:
                if answer.status != 200:
                    raise NoMilk(f"lb-goat at {url.authority} answered {answer.status}")
                found: dict[str, Any] = await answer.json()
                return found
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise NoMilk(f"lb-goat at {url.authority} gives no answer: {error or 'timeout'}") from error

    async def follow_registry(self) -> None:
        """Never returns: asks where lb-goat is by blocking queries, so a change is known when it happens."""
        index = 0
        limit = aiohttp.ClientTimeout(total=75)
        while True:
            query = self.registry.with_path("/v1/health/service/lb-goat") % {"index": index, "wait": "60s"}
            try:
                async with self.http.get(query, timeout=limit, raise_for_status=True) as answer:
                    self.learn(await answer.json())
                    newest = max(1, int(answer.headers["X-Consul-Index"]))
                index = newest if newest >= index else 0  # it went backwards: start over
            except (aiohttp.ClientError, TimeoutError, LookupError, ValueError):
                index = 0
                await asyncio.sleep(random.uniform(0.5, 1.5))

    def learn(self, entries: list[dict[str, Any]]) -> None:
        """Healthy load balancers are used, any while none is healthy; an empty answer teaches nothing."""
        healthy = [e for e in entries if all(check["Status"] == "passing" for check in e["Checks"])]
        self.goats = [
            URL.build(
                scheme="http",
                host=entry["Service"]["Address"] or entry["Node"]["Address"],
                port=entry["Service"]["Port"],
            )
            for entry in healthy or entries
        ] or self.goats

    async def working(self, _: web.Application) -> AsyncIterator[None]:
        """The registry is followed, and connections to the goats are kept, while the app runs."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_IDLE_S)
        async with aiohttp.ClientSession(connector=connector) as self.http, asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self.follow_registry())
            yield
            following.cancel()


def main() -> None:
    """Hands out milk until SIGTERM: then no new connections, the requests in flight are finished, exit 0."""
    farmer = Farmer()
    app = web.Application()
    app.router.add_get("/milk", farmer.milk)
    app.router.add_get("/health", farmer.health)
    app.router.add_get("/health/dependencies", farmer.dependencies)
    app.cleanup_ctx.append(farmer.working)
    address, port = os.environ["MILKRUN_ADDRESS"], int(os.environ["MILKRUN_PORT"])
    print(f"{farmer.name['instance']} sells milk at {address}:{port}", flush=True)
    web.run_app(app, host=address, port=port, shutdown_timeout=STOP_LIMIT_S, access_log=None, print=None)


if __name__ == "__main__":
    main()
