"""A goat: it gives milk and says which goat it was.

A plain HTTP app that knows nothing of load balancers. Who it is and where it listens come from the agent that
starts it, as MILKRUN_SERVICE, MILKRUN_VERSION, MILKRUN_INSTANCE, MILKRUN_ADDRESS and MILKRUN_PORT.

    GET /milk      {"goat": {"service": ..., "version": ..., "instance": ...}, "request": ...}
    GET /health    200 while it can give milk

For experiments, in `[env]` of services/goat.toml: DAIRY_MILKING_S is how long one milking takes, DAIRY_SICK which
versions are sick and how (sickness.py), and DAIRY_LEDGER a folder where each goat writes down the id of every
request that it gave milk for.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import sickness
from aiohttp import web

STOP_LIMIT_S = 8
"""How long requests in flight may take to finish after SIGTERM."""

WELL_AT_FIRST = 3
"""So many milkings go well also with a goat that errs: a few tries beforehand do not find it, users do."""


class Goat:
    """One goat, and what it answers."""

    def __init__(self) -> None:
        self.name = {key: os.environ[f"MILKRUN_{key.upper()}"] for key in ("service", "version", "instance")}
        self.sick = sickness.of(self.name["version"], os.environ.get("DAIRY_SICK", ""))
        self.milking_s = float(os.environ.get("DAIRY_MILKING_S", "0")) + self.sick.slow_s
        folder = os.environ.get("DAIRY_LEDGER")
        path = Path(folder, f"{self.name['instance']}.log") if folder else Path(os.devnull)
        self.asked = 0
        self.ledger = path.open("a", buffering=1)  # by line: a kill loses nothing that was written down

    async def milk(self, request: web.Request) -> web.Response:
        """A bottle of milk, if this goat is well."""
        request_id = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        if self.milking_s:
            await asyncio.sleep(self.milking_s)
        self.asked += 1
        if self.asked > WELL_AT_FIRST and random.random() < self.sick.errors:
            answer = {"goat": self.name, "error": "this goat is sick", "request": request_id}
            return web.json_response(answer, status=500)
        if self.sick.wrong:
            return web.json_response({"water": self.name, "request": request_id})
        self.ledger.write(f"{request_id}\n")
        return web.json_response({"goat": self.name, "request": request_id})

    async def health(self, _: web.Request) -> web.Response:
        """Whether this goat can give milk."""
        if self.sick.unhealthy:
            return web.json_response({"status": "this goat is sick"}, status=503)
        return web.json_response({"status": "ok"})

    async def living(self, _: web.Application) -> AsyncIterator[None]:
        """Sick goats show it while the app runs."""
        if self.sick.crash_after_s is not None:
            asyncio.get_running_loop().call_later(self.sick.crash_after_s, os._exit, 1)
        if self.sick.hangs:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        yield


def main() -> None:
    """Gives milk until SIGTERM: then no new connections, the requests in flight are finished, exit 0."""
    try:
        goat = Goat()
    except ValueError as error:
        sys.exit(f"the variables of [env] in services/goat.toml: {error}")
    app = web.Application()
    app.router.add_get("/milk", goat.milk)
    app.router.add_get("/health", goat.health)
    app.cleanup_ctx.append(goat.living)
    address, port = os.environ["MILKRUN_ADDRESS"], int(os.environ["MILKRUN_PORT"])
    print(f"{goat.name['instance']} gives milk at {address}:{port}", flush=True)
    web.run_app(
        app,
        host=address,
        port=port,
        shutdown_timeout=STOP_LIMIT_S,
        handle_signals=not goat.sick.hangs,  # aiohttp's own come after ours, and would end it
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
