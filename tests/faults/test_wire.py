"""The wire of the partition tests does what it is told: else they would prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random

import pytest

from .wire import Wire, on_a_host

pytestmark = pytest.mark.needs("netns")


@pytest.mark.parametrize(
    ("fault", "new", "kept"),
    [
        (lambda wire: wire.drop(there=1.0), TimeoutError, TimeoutError),
        (lambda wire: wire.drop(back=1.0), TimeoutError, TimeoutError),
        (lambda wire: wire.refuse(), OSError, TimeoutError),
        (lambda wire: wire.reset(), ConnectionRefusedError, ConnectionResetError),
        (lambda wire: wire.whole(), None, None),
        (lambda wire: wire.delay(0.1), None, None),
    ],
    ids=["nothing there", "nothing back", "refused", "reset", "whole", "late"],
)
def test_a_fault_is_what_the_kernel_sees(fault, new, kept):
    async def seen(step) -> object:
        try:
            async with asyncio.timeout(0.3):
                await step
        except (TimeoutError, OSError) as error:
            return type(error) if error.errno != errno.EHOSTUNREACH else OSError
        return None

    async def body() -> None:
        wire = Wire(random.Random(1))
        far = wire.listener.getsockname()
        theirs: list[asyncio.StreamWriter] = []

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs.append(writer)
            with contextlib.suppress(OSError):
                while data := await reader.read(100):
                    writer.write(data)

        server = await asyncio.start_server(echo, sock=wire.listener)
        reader, writer = await asyncio.open_connection(*far)

        async def ask() -> None:
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"

        async def connect() -> None:
            _, fresh = await asyncio.open_connection(*far)
            fresh.transport.abort()

        await ask()
        fault(wire)
        assert (await seen(connect()), await seen(ask())) == (new, kept)
        wire.whole()
        server.close()
        for each in (writer, *theirs):
            each.transport.abort()
            with contextlib.suppress(OSError):
                await each.wait_closed()
        wire.close()

    on_a_host(body)
