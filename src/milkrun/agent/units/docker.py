"""The one door to this host's Docker engine: its HTTP API over a UNIX socket, as far as the agent needs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from milkrun.agent.units.docker_answers import Container, Happened, Named, Refusal, Top
from milkrun.errors import MilkrunError, PartMissing

SOCKET = "/var/run/docker.sock"
ANSWER_S = 30.0
"""A start may wait for the engine's disk; who waits for longer than this waits for nothing."""
CONNECT_S = 5.0
SILENCE_S = 20.0
"""A waiting request is asked anew after this: the engine may have lost it without a word."""
ANSWER_BYTES_AT_MOST = 16 << 20

_T = TypeVar("_T")
_VERSION = re.compile(r"\d{1,3}\.\d{1,4}")


class EngineAway(MilkrunError):
    """The engine does not answer. What its containers do is not known meanwhile."""

    code = "docker-away"


class EngineRefused(MilkrunError):
    """The engine answered, and said no. `status` is its HTTP status."""

    code = "docker-refused"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message, remedy="see what the engine's own log says")
        self.status = status


def socket_path() -> Path:
    """Where the engine listens: what DOCKER_HOST says if that is a socket, else where engines do."""
    named = os.environ.get("DOCKER_HOST", "")
    return Path(named.removeprefix("unix://") if named.startswith("unix://") else SOCKET)


class Engine:
    """Asks the engine at a socket. Every method raises EngineAway or EngineRefused.

    The version of its API is whichever it speaks: it is asked again after it was away.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http: aiohttp.ClientSession | None = None
        self._version = ""

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._socket), limit=0),
            base_url="http://docker",
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http:
            await self._http.close()

    async def inspect(self, name: str) -> Container | None:
        """The container with this name or id; None when there is none."""
        try:
            return _read(await self._ask("GET", _at(name, "json")), Container)
        except EngineRefused as error:
            if error.status == 404:
                return None
            raise

    async def listed(self, labels: Iterable[str] = (), *, stopped: bool = False) -> list[str]:
        """The ids of the containers that run (and of those that do not) and have these labels (`NAME[=VALUE]`)."""
        wanted = msgspec.json.encode({"label": list(labels)}).decode()
        query = {"all": "1" if stopped else "0", "filters": wanted}
        answer = await self._ask("GET", "/containers/json", query=query)
        return [one.id for one in _read(answer, list[Named])]

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """The id of a new container. PartMissing when its image is not on this host."""
        try:
            made = await self._ask("POST", "/containers/create", query={"name": name}, body=body)
        except EngineRefused as error:
            if error.status == 404:
                raise PartMissing(
                    f"the image {body.get('Image')} is not on this host",
                    remedy=f"docker pull {body.get('Image')}, or docker load; or correct docker.image and commit",
                ) from error
            raise
        return _read(made, Named).id

    async def start(self, container: str) -> None:
        """The container runs, or did already."""
        await self._ask("POST", _at(container, "start"))

    async def kill(self, container: str, signal: str) -> None:
        """It was sent the signal; or it runs no more."""
        try:
            await self._ask("POST", _at(container, "kill"), query={"signal": signal})
        except EngineRefused as error:
            if error.status not in (404, 409):
                raise

    async def ended(self, container: str) -> bool:
        """Whether it runs no more; told at once when it ends, False when it still ran for a while."""
        query = {"condition": "not-running"}
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._ask("POST", _at(container, "wait"), query=query, limit_s=SILENCE_S * 2)
        except TimeoutError:
            return False
        except EngineRefused as error:
            if error.status != 404:
                raise
        return True

    async def stop(self, container: str, limit_s: int) -> None:
        """It runs no more: asked to end, and killed after so many seconds."""
        with contextlib.suppress(EngineRefused):  # what does not run, or is gone
            await self._ask(
                "POST", _at(container, "stop"), query={"t": str(limit_s)}, limit_s=limit_s + ANSWER_S
            )

    async def remove(self, container: str) -> None:
        """There is no such container; one that runs is killed."""
        try:
            await self._ask("DELETE", _at(container), query={"force": "1", "v": "1"})
        except EngineRefused as error:
            if error.status not in (404, 409):  # 409: it is being removed already
                raise

    async def pids(self, container: str) -> list[int]:
        """The pids on this host of its processes."""
        top = _read(await self._ask("GET", _at(container, "top")), Top)
        column = top.titles.index("PID") if "PID" in top.titles else 0
        rows = [row[column] for row in top.processes or [] if len(row) > column]
        return [int(text) for text in rows if text.isdigit()]

    async def log(self, container: str, since: str) -> AsyncGenerator[bytes, None]:
        """Blocks of what it writes, in frames, each line with its time, from `since` on (`SECONDS.NANOSECONDS`)."""
        query = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1", "since": since or "0"}
        async with self._stream(_at(container, "logs"), query) as reply:
            async for block in reply.content.iter_any():
                yield block

    async def events(self, since: str) -> AsyncGenerator[Happened, None]:
        """What happens to containers, from `since` on as far as the engine remembers; it ends with the engine."""
        filters = msgspec.json.encode({"type": ["container"]}).decode()
        async with self._stream("/events", {"since": since, "filters": filters}) as reply:
            async for line in reply.content:
                if line.strip():
                    yield _read(line, Happened)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        limit_s: float = ANSWER_S,
    ) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        url = await self._url(path)
        async with (
            self._errors(),
            asyncio.timeout(limit_s),
            self._session.request(method, url, params=query, data=data, headers=headers) as reply,
        ):
            content = await _whole(reply)
        if reply.status >= 400:
            raise _refusal(reply.status, content)
        return content

    @contextlib.asynccontextmanager
    async def _stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that goes on; who reads it gets EngineAway when it breaks."""
        url = await self._url(path)
        async with self._errors(), self._session.get(url, params=query) as reply:
            if reply.status >= 400:
                raise _refusal(reply.status, await _whole(reply))
            yield reply

    async def _url(self, path: str) -> str:
        """The path in the API's newest version that the engine speaks."""
        if not self._version:
            async with self._errors(), asyncio.timeout(ANSWER_S), self._session.get("/_ping") as reply:
                await _whole(reply)
                version = reply.headers.get("Api-Version", "")
            if not _VERSION.fullmatch(version):
                raise EngineAway(f"what answers at {self._socket} is no Docker engine")
            self._version = version
        return f"/v{self._version}{path}"

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("use `async with Engine(...)`")
        return self._http

    @contextlib.asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """What goes wrong on the way to the engine, as ours."""
        try:
            yield
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._version = ""
            if not self._socket.exists():
                raise EngineAway(
                    f"there is no Docker engine at {self._socket}",
                    remedy="start it (systemctl start docker), or install it; DOCKER_HOST names another socket",
                ) from error
            raise EngineAway(
                f"the Docker engine at {self._socket} does not answer ({_why(error)})",
                remedy="see whether it runs, and whether the agent's user may write to its socket",
            ) from error


def _at(container: str, *rest: str) -> str:
    return "/".join(("/containers", quote(container, safe=""), *rest))


async def _whole(reply: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for block in reply.content.iter_any():
        content += block
        if len(content) > ANSWER_BYTES_AT_MOST:
            raise EngineRefused("the Docker engine's answer is over 16 MiB", status=reply.status)
    return bytes(content)


def _read(content: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.DecodeError as error:
        raise EngineRefused(f"the Docker engine's answer cannot be read: {error}", status=200) from error


def _refusal(status: int, content: bytes) -> EngineRefused:
    try:
        said = msgspec.json.decode(content, type=Refusal).message
    except msgspec.DecodeError:
        said = content.decode(errors="replace")
    return EngineRefused(f"the Docker engine says: {' '.join(said.split())[:300] or status}", status=status)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else str(error)
    return (reason or type(error).__name__).lower()[:120]
