from __future__ import annotations

import asyncio

import uvloop


def pytest_asyncio_loop_factories(config, item):
    """Both loops: each speaks TLS in its own way."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
