"""A registry with DNS, in this event loop, and clients that speak DNS to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import pytest
from ports import free_port

from milkrun.registry import commands
from milkrun.registry.access.authority import ALL
from milkrun.registry.dns.server import answering
from milkrun.registry.engine import Engine
from milkrun.registry.nouns import Check, Service, Weights
from milkrun.registry.server import running

HOST = "127.0.0.1"
WITHIN_S = 10.0


class Serving:
    """The engine behind the server, and where DNS and HTTP listen."""

    def __init__(self, engine: Engine, http: tuple[str, int], port: int) -> None:
        self.engine = engine
        self.http = http
        self.port = port

    def many_goats(self, count: int) -> None:
        """So many goats are in the catalog, at addresses of their own; not on the disk, which takes longer."""
        machine = self.engine.machine
        for number in range(count):
            address = f"10.0.{number // 256}.{number % 256}"
            goat = Service(id=f"goat-{number}", service="goat", address=address, port=8101)
            register = commands.CatalogRegister(name=machine.node, node=None, service=goat, checks=[])
            machine.apply(register, 0.0)
        machine.ledger.take()

    async def goat(self, number: int, *, port: int = 8101, weight: int = 1, service: str = "goat") -> None:
        """Goat `number` is registered, at an address of its own unless it has a port of its own."""
        address = HOST if port != 8101 else f"10.0.{number // 256}.{number % 256}"
        goat = Service(
            id=f"{service}-{number}",
            service=service,
            address=address,
            port=port,
            weights=Weights(weight, 1),
        )
        name = self.engine.own.node
        await self.engine.submit(commands.CatalogRegister(name=name, node=None, service=goat, checks=[]), ALL)

    async def check(self, number: int, status: str) -> None:
        name = self.engine.own.node
        check = Check(node=name, check_id=f"c{number}", name="c", status=status, service_id=f"goat-{number}")
        await self.engine.submit(
            commands.CatalogRegister(name=name, node=None, service=None, checks=[check]), ALL
        )

    async def drop(self, number: int) -> None:
        name = self.engine.own.node
        await self.engine.submit(
            commands.CatalogDeregister(node=name, service_id=f"goat-{number}", check_id=""), ALL
        )

    async def ask(
        self, name: str = "goat.service.consul", kind: str = "A", *, tcp: bool = False, payload: int = 0
    ) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=0 if payload else False, payload=payload or 512)
        send: Any = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        answer: dns.message.Message = await send(query, HOST, port=self.port, timeout=WITHIN_S)
        return answer


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def serving(**options: Any) -> AsyncIterator[Serving]:
        port = free_port()
        async with (
            running((HOST, 0), tmp_path / "data", node="n1") as (engine, http),
            answering(engine, (HOST, port), **options),
        ):
            yield Serving(engine, http, port)

    return serving
