"""A registry that does not answer is spoken of in words that a person can act on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from ports import free_port

from milkrun.consul import Address, Registry
from milkrun.errors import InputRefused, RegistryRefused, RegistryUnreachable


async def told(url: str, wait_s: float = 5.0) -> str:
    async with Registry(Address(url=url)) as registry:
        with pytest.raises(RegistryUnreachable) as caught:
            await registry.ask("GET", "/v1/status/leader", wait_s=wait_s)
    assert "ssl:default" not in caught.value.message
    assert "Errno" not in caught.value.message
    return caught.value.message


@contextlib.asynccontextmanager
async def stranger(says: bytes | None) -> AsyncIterator[str]:
    """A program that is no registry: it says this and hangs up, or (None) says nothing."""
    silent = asyncio.Event()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if says is None:
            await silent.wait()
        else:
            writer.write(says)
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        silent.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nobody_listens(host: str) -> None:
    url = f"http://{host}:{free_port()}"
    assert (
        await told(url)
        == f"the registry at {url} does not answer (connection refused: nothing listens there)"
    )


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (None, "no answer in 0.2 s"),
        (b"", "it closed the connection without an answer; is it https:// instead of http://?"),
        (b"220 mail.example ESMTP\r\n", "what answers there does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the connection broke within the answer"),
    ],
)
async def test_somebody_else_listens(says: bytes | None, why: str) -> None:
    async with stranger(says) as url:
        assert await told(url, wait_s=0.2) == f"the registry at {url} does not answer ({why})"


async def test_tls_where_there_is_none() -> None:
    async def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert "no TLS is spoken there" in await told(url)


async def test_another_web_server_is_asked_about() -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 14\r\n\r\n404: Not\nFound"
    async with stranger(answer) as url, Registry(Address(url=url)) as registry:
        with pytest.raises(RegistryRefused) as caught:
            await registry.services()
    assert caught.value.message == "the registry answered 404 to GET /v1/catalog/services: 404: Not Found"
    assert caught.value.remedy.startswith(f"is {url} a registry?")


@pytest.mark.parametrize(
    "text", ["ftp://x", "http://[::1", "http://localhost:99999", "http://x:0", "http://", "x y:z"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputRefused, match="is not a registry's address"):
        Address.from_environment(text)
