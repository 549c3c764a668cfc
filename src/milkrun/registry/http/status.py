"""/v1/status: this registry is its own leader."""

from __future__ import annotations

from milkrun.registry.engine import Engine
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route

RPC_PORT = 8300


async def leader(engine: Engine, _: Request) -> Reply:
    """The leader's address, as Consul writes it."""
    return Reply.json(_address(engine))


async def peers(engine: Engine, _: Request) -> Reply:
    """The addresses of all servers: this one."""
    return Reply.json([_address(engine)])


def _address(engine: Engine) -> str:
    return f"{engine.own.address}:{RPC_PORT}"


ROUTES = (
    Route("GET", "/v1/status/leader", leader, "none", "none"),
    Route("GET", "/v1/status/peers", peers, "none", "none"),
)
