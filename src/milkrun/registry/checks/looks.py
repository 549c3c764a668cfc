"""One look at a service: where the check wants to go is read, judged and pinned, and only then asked."""

from __future__ import annotations

import asyncio
from typing import Self

from milkrun.registry.checks import grpc_verdict, verdict
from milkrun.registry.checks.definition import Grpc, Http, Tcp
from milkrun.registry.checks.grpc_probe import GrpcProbe
from milkrun.registry.checks.http_probe import HttpProbe
from milkrun.registry.checks.pin import Resolve, pinned
from milkrun.registry.checks.reach import Reach
from milkrun.registry.checks.target import (
    BadTarget,
    Target,
    is_method,
    is_server_name,
    of_address,
    of_grpc,
    of_url,
)
from milkrun.registry.checks.tcp_probe import connect
from milkrun.registry.checks.verdict import Failed, Result

_NO_NAME = "tls: TLSServerName is not a host's name"


class Looks:
    """Looks at what `reach` permits and nothing else."""

    def __init__(self, reach: Reach, resolve: Resolve) -> None:
        self._reach = reach
        self._resolve = resolve
        self._http = HttpProbe()
        self._grpc = GrpcProbe()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    async def http(self, look: Http, own: str, timeout_s: float) -> Result:
        """What the URL answers, for a check of a service at `own`."""
        if not is_method(look.method):
            return verdict.of_failure(f'net/http: invalid method "{look.method[:64]}"')
        try:
            web = of_url(look.url)
        except BadTarget as error:
            return verdict.of_http_failure(look.method, look.url, Failed(str(error)))
        if not is_server_name(look.server_name):
            return verdict.of_http_failure(look.method, look.url, Failed(_NO_NAME))
        addresses = await self._pinned(web.target, own, timeout_s)
        if isinstance(addresses, Failed):
            return verdict.of_http_failure(look.method, look.url, addresses)
        seen = await self._http.ask(look, web, addresses, timeout_s)
        if isinstance(seen, Failed):
            return verdict.of_http_failure(look.method, look.url, seen)
        return verdict.of_answer(look.method, look.url, seen)

    async def tcp(self, look: Tcp, own: str, timeout_s: float) -> Result:
        """Whether the address takes a connection, for a check of a service at `own`."""
        try:
            target = of_address(look.address)
        except BadTarget as error:
            return verdict.of_failure(str(error))
        addresses = await self._pinned(target, own, timeout_s)
        if isinstance(addresses, Failed):
            return verdict.of_failure(addresses.why)
        failed = await connect(addresses, target.port, timeout_s)
        return verdict.of_failure(failed.why) if failed else verdict.of_connection(look.address)

    async def grpc(self, look: Grpc, own: str, timeout_s: float) -> Result:
        """What the health service says, for a check of a service at `own`."""
        try:
            health = of_grpc(look.address)
        except BadTarget as error:
            return grpc_verdict.of_call(look.address, grpc_verdict.unreached(str(error)))
        if not is_server_name(look.server_name):
            return grpc_verdict.of_call(look.address, grpc_verdict.distrusted(_NO_NAME))
        addresses = await self._pinned(health.target, own, timeout_s)
        if isinstance(addresses, Failed):
            return grpc_verdict.of_call(look.address, grpc_verdict.unreached(addresses.why))
        return grpc_verdict.of_call(look.address, await self._grpc.ask(look, health, addresses, timeout_s))

    async def _pinned(self, target: Target, own: str, timeout_s: float) -> list[str] | Failed:
        try:
            async with asyncio.timeout(timeout_s):
                return await pinned(target, own=own, reach=self._reach, resolve=self._resolve)
        except TimeoutError:
            return Failed(f"dial tcp: lookup {target.host}: i/o timeout")
