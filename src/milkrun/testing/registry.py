"""An embedded registry for tests: the real one, in this event loop, on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from milkrun.consul import Address
from milkrun.registry.server import running


@asynccontextmanager
async def embedded_registry(data_dir: Path, *, node: str = "test-host") -> AsyncIterator[Address]:
    """A registry serves at the address meanwhile; what it acknowledged is in `data_dir` afterwards."""
    async with running(("127.0.0.1", 0), data_dir, node=node) as (_, (host, port)):
        yield Address(url=f"http://{host}:{port}")
