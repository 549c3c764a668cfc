"""One gRPC probe: a call of the standard health service at a pinned address, bounded in time and size."""

from __future__ import annotations

import asyncio
import ssl
from functools import cached_property

from milkrun.registry.checks.definition import Grpc
from milkrun.registry.checks.grpc_verdict import LATE, Broken, Outcome, distrusted, unreached
from milkrun.registry.checks.target import Health
from milkrun.registry.checks.tcp_probe import why
from milkrun.registry.checks.verdict import dial

_READ_BYTES = 4096


class GrpcProbe:
    """Asks gRPC servers how they are, each time on a new connection."""

    async def ask(self, grpc: Grpc, health: Health, addresses: list[str], timeout_s: float) -> Outcome:
        """How the call ended at the first address that takes the connection; else why the first one does not."""
        first: Broken | None = None
        try:
            async with asyncio.timeout(timeout_s):
                for address in addresses:
                    found = await self._connected(grpc, health, address)
                    if not isinstance(found, Broken):
                        return await _call(*found, grpc, health, timeout_s)
                    first = first or found
        except TimeoutError:
            return first or LATE
        return first or LATE

    async def _connected(
        self, grpc: Grpc, health: Health, address: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | Broken:
        port = health.target.port
        try:
            return await asyncio.open_connection(
                address,
                port,
                ssl=self._context(grpc),
                server_hostname=(grpc.server_name or health.target.host) if grpc.tls else None,
            )
        except ssl.SSLCertVerificationError as error:
            return distrusted(f"x509: {_line(error.verify_message)}")
        except ssl.SSLError as error:
            return distrusted(f"tls: {_line(error.reason or error)}")
        except OSError as error:
            # Only a handshake ends like this: who takes no connection says so otherwise.
            if grpc.tls and isinstance(error, ConnectionResetError | BrokenPipeError):
                return distrusted("EOF")
            return unreached(dial(address, port, why(error)))

    def _context(self, grpc: Grpc) -> ssl.SSLContext | None:
        if not grpc.tls:
            return None
        return self._unverified if grpc.skip_verify else self._verified

    @cached_property
    def _verified(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        return context

    @cached_property
    def _unverified(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        return context


async def _call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, grpc: Grpc, health: Health, timeout_s: float
) -> Outcome:
    # A registry without gRPC checks does without HTTP/2 (docs/dependencies.md has its price).
    from milkrun.registry.checks.grpc_call import Call  # noqa: PLC0415

    scheme = "https" if grpc.tls else "http"
    call = Call(health.authority, health.service, scheme=scheme, timeout_s=timeout_s)
    try:
        while call.outcome is None:
            # Not awaited: what is left to say is short, because what was heard is bounded.
            writer.write(call.to_send())
            data = await reader.read(_READ_BYTES)
            if data:
                call.take(data)
            else:
                call.close()
    except OSError:
        call.close()
    finally:
        # The answer is here or nobody waits for it: there is nothing to say goodbye for.
        writer.transport.abort()
    return call.outcome or LATE


def _line(text: object) -> str:
    return " ".join(str(text).split())[:200]
