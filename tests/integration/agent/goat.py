"""A tiny instance: healthy unless a file says that it is sick; tells its pid; ends on SIGTERM."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aiohttp import web


async def health(_: web.Request) -> web.Response:
    sick = Path(f"sick-{os.environ['MILKRUN_INSTANCE']}").exists()
    return web.json_response({"pid": os.getpid()}, status=503 if sick else 200)


app = web.Application()
app.router.add_get("/health", health)
sys.stdout.write(f"milked by {os.environ['MILKRUN_INSTANCE']} {'CONSUL_HTTP_TOKEN' in os.environ}\n")
sys.stdout.flush()
web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]), shutdown_timeout=1, print=None, access_log=None)
