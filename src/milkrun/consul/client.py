"""The async client of Consul's HTTP API."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from milkrun.consul import wire
from milkrun.consul.silence import why
from milkrun.consul.tls import Tls, switch
from milkrun.errors import InputRefused, RegistryRefused, RegistryUnreachable
from milkrun.model import ServiceName

ANSWER_BYTES_AT_MOST = 64 * 1024 * 1024
ANSWER_WAIT_S = 10.0
TXN_OPERATIONS_AT_MOST = 64

_INDEX = re.compile(r"[0-9]{1,20}")

_T = TypeVar("_T")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the registry is and how to talk to it. The token never shows in a repr."""

    url: str = "http://127.0.0.1:8500"
    token: str = ""
    tls: Tls = Tls()

    @classmethod
    def from_environment(cls, url: str = "", *, token_file: Path | None = None) -> Self:
        """The address that Consul's own variables give; `url`, when not empty, wins over CONSUL_HTTP_ADDR.

        The token is CONSUL_HTTP_TOKEN, else that of CONSUL_HTTP_TOKEN_FILE, else, if it is there, `token_file`'s.

        Where CONSUL_HTTP_SSL asks for TLS there is no going back to `http://`, as in Consul's own tools.
        """
        text = url or os.environ.get("CONSUL_HTTP_ADDR", "") or "127.0.0.1:8500"
        secure = switch("CONSUL_HTTP_SSL")
        if "://" not in text:
            text = f"http://{text}"
        if secure and text.startswith("http://"):
            text = "https://" + text.removeprefix("http://")
        try:
            parts = urlsplit(text)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not close, a port beyond 65535
            good = False
        if not good:
            raise InputRefused(
                f"{text[:200]!r} is not a registry's address", remedy="for example http://127.0.0.1:8500"
            )
        return cls(
            url=text.rstrip("/"),
            token=_token(token_file),
            tls=Tls.from_environment(),
        )

    def __repr__(self) -> str:
        return f"Address({self.url})"

    @property
    def secure(self) -> bool:
        """Whether it is spoken to by TLS."""
        return urlsplit(self.url).scheme == "https"


def _token(otherwise: Path | None) -> str:
    """The token of the variables, or of the file. Raises InputRefused for a file that should be there and is not."""
    if token := os.environ.get("CONSUL_HTTP_TOKEN", ""):
        return token
    named = os.environ.get("CONSUL_HTTP_TOKEN_FILE", "")
    file = Path(named) if named else otherwise
    if file is None:
        return ""
    try:
        return file.read_text("ascii").strip()
    except FileNotFoundError as error:
        if not named:
            return ""
        raise InputRefused("CONSUL_HTTP_TOKEN_FILE names it, but it is not there", file=named) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InputRefused(f"the registry's token cannot be read: {why}", file=str(file)) from error


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A registry's answer. `index` is X-Consul-Index, at least 1.

    `doubt` says why the answer may not be the whole truth, empty when it is: an ACL narrowed it, the server
    knows no leader, or it has no index and so is no registry's.
    """

    status: int
    index: int
    body: bytes
    doubt: str = ""


class Registry:
    """One connection pool to a registry. Every call is bounded in time and size.

    Raises RegistryUnreachable when nobody answers, RegistryRefused when the answer is no.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._answered_at = time.monotonic()
        self._http: aiohttp.ClientSession | None = None
        self._name = ""

    async def __aenter__(self) -> Self:
        tls = self.address.tls.context() if self.address.secure else True
        self._name = self.address.tls.server_name if self.address.secure else ""
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls),
            headers={"X-Consul-Token": self.address.token} if self.address.token else {},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        # aiohttp asks again by itself when a connection breaks: a watch would then wait at an index that a
        # restored registry reaches much later, and a `cas` would be refused because it had already succeeded.
        self._http._retry_connection = False  # noqa: SLF001  (there is no public switch)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http:
            await self._http.close()

    # The one request that all calls go through

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        wait_s: float = ANSWER_WAIT_S,
        accept: tuple[int, ...] = (200,),
    ) -> Answer:
        """The registry's answer, whose status is one of `accept`."""
        if self._http is None:
            raise RuntimeError("use `async with Registry(...)`")
        try:
            async with asyncio.timeout(wait_s):
                async with self._http.request(
                    method,
                    self.address.url + path,
                    params=params,
                    data=body,
                    allow_redirects=False,
                    server_hostname=self._name or None,
                ) as reply:
                    data = await self._bounded(reply)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            tls = self.address.tls if self.address.secure else None
            raise RegistryUnreachable(
                f"the registry at {self.address.url} does not answer ({why(error, wait_s, tls)})",
                remedy="start it with `milkrun up` or `milkrun registry`, or set CONSUL_HTTP_ADDR",
            ) from error
        if reply.status not in accept:
            raise RegistryRefused(
                f"the registry answered {reply.status} to {method} {path}: {_text(data)}",
                status=reply.status,
                remedy=f"is {self.address.url} a registry? --registry and CONSUL_HTTP_ADDR name another one"
                if reply.status in (404, 405)
                else "",
            )
        self._answered_at = time.monotonic()
        index = reply.headers.get("X-Consul-Index", "")
        known = _INDEX.fullmatch(index) is not None
        return Answer(
            status=reply.status,
            index=max(1, int(index)) if known else 1,
            body=data,
            doubt=_doubt(reply.headers, indexed=known),
        )

    @property
    def silent_s(self) -> float:
        """For how long it has given none of the answers that were asked for; from this object's start at first."""
        return time.monotonic() - self._answered_at

    async def _bounded(self, reply: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in reply.content.iter_chunked(1 << 16):
            size += len(chunk)
            if size > ANSWER_BYTES_AT_MOST:
                raise RegistryRefused("the registry's answer is over 64 MiB", status=reply.status)
            chunks.append(chunk)
        return b"".join(chunks)

    # KV

    async def get(self, key: str) -> wire.Pair | None:
        """The entry under `key`, None when there is none."""
        answer = await self.ask("GET", _kv(key), accept=(200, 404))
        if answer.status == 404:
            return None
        found = decode(answer.body, list[wire.Pair])
        if len(found) != 1:  # a key that is not there is a 404; an empty list is a registry in trouble
            raise RegistryRefused(f"the registry answered {len(found)} entries for the key {key}", status=200)
        return found[0]

    async def entries(self, prefix: str) -> list[wire.Pair]:
        """All entries whose key starts with `prefix`, by key."""
        answer = await self.ask("GET", _kv(prefix), params={"recurse": ""}, accept=(200, 404))
        return [] if answer.status == 404 else decode(answer.body, list[wire.Pair])

    async def folders(self) -> list[str]:
        """The first part of every key that has more than one, without the slash."""
        params = {"keys": "", "separator": "/"}
        answer = await self.ask("GET", "/v1/kv/", params=params, accept=(200, 404))
        names = [] if answer.status == 404 else decode(answer.body, list[str])
        return [name.removesuffix("/") for name in names if name.endswith("/")]

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        cas: int | None = None,
        acquire: str | None = None,
        release: str | None = None,
    ) -> bool:
        """True when the value is stored; False when `cas`, or the lock of `acquire` or `release`, says no."""
        params = {"cas": str(cas)} if cas is not None else {}
        if acquire:
            params["acquire"] = acquire
        if release:
            params["release"] = release
        answer = await self.ask("PUT", _kv(key), params=params, body=value)
        return answer.body.strip() == b"true"

    async def delete(self, key: str, *, cas: int | None = None) -> bool:
        """True when the key is gone; False when `cas` says that it changed."""
        params = {"cas": str(cas)} if cas is not None else {}
        return (await self.ask("DELETE", _kv(key), params=params)).body.strip() == b"true"

    async def txn(self, operations: list[dict[str, Any]]) -> wire.TxnAnswer:
        """All operations done, or none (then `errors` says which one did not hold)."""
        if len(operations) > TXN_OPERATIONS_AT_MOST:
            raise InputRefused(f"{len(operations)} operations do not fit in one transaction of 64")
        answer = await self.ask("PUT", "/v1/txn", body=msgspec.json.encode(operations), accept=(200, 409))
        return decode(answer.body, wire.TxnAnswer)

    # Services and checks

    async def register(self, registration: wire.Registration) -> None:
        """The service instance is in the catalog, with its check."""
        await self.ask("PUT", "/v1/agent/service/register", body=msgspec.json.encode(registration))

    async def deregister(self, service_id: str) -> None:
        """The service instance is not in the catalog; it may already have been gone."""
        await self.ask("PUT", f"/v1/agent/service/deregister/{quote(service_id)}", accept=(200, 404))

    async def report(self, check_id: str, status: str, output: str) -> None:
        """The TTL check has this status (passing, warning or critical) and its clock starts anew."""
        body = msgspec.json.encode({"Status": status, "Output": output[:4000]})
        await self.ask("PUT", f"/v1/agent/check/update/{quote(check_id)}", body=body)

    async def maintenance(self, service_id: str, *, enable: bool, reason: str = "") -> None:
        """The instance is in maintenance, or no longer."""
        params = {"enable": "true" if enable else "false", "reason": reason}
        await self.ask("PUT", f"/v1/agent/service/maintenance/{quote(service_id)}", params=params)

    async def health(self, service: ServiceName) -> tuple[list[wire.HealthEntry], int]:
        """All instances of the service with their checks, and the index of this answer."""
        answer = await self.ask("GET", f"/v1/health/service/{service}")
        return decode(answer.body, list[wire.HealthEntry]), answer.index

    async def services(self) -> dict[str, list[str]]:
        """The names of all services in the catalog, with their tags."""
        return decode((await self.ask("GET", "/v1/catalog/services")).body, dict[str, list[str]])

    # Sessions

    async def create_session(self, name: str, *, ttl_s: int, behavior: str, lock_delay_s: int) -> str:
        """The id of a new session that lives while it is renewed within `ttl_s` seconds (10 to 86400)."""
        body = {"Name": name, "TTL": f"{ttl_s}s", "Behavior": behavior, "LockDelay": f"{lock_delay_s}s"}
        answer = await self.ask("PUT", "/v1/session/create", body=msgspec.json.encode(body))
        return decode(answer.body, wire.Created).id

    async def renew_session(self, session: str) -> bool:
        """True when the session lives on; False when it is gone."""
        answer = await self.ask("PUT", f"/v1/session/renew/{session}", accept=(200, 404))
        return answer.status == 200

    async def destroy_session(self, session: str) -> None:
        """The session is gone, and what it held is released or deleted."""
        await self.ask("PUT", f"/v1/session/destroy/{session}")

    async def leader(self) -> str:
        """The registry's leader, as `host:port`; empty while it has none."""
        return decode((await self.ask("GET", "/v1/status/leader", wait_s=3)).body, str)


def decode(body: bytes, shape: type[_T]) -> _T:
    """The typed value of a registry's JSON; an answer of another shape is refused, never half-read."""
    try:
        return msgspec.json.decode(body, type=shape)
    except wire.UNREADABLE as error:
        raise RegistryRefused(
            f"the registry's answer is not what Consul would say: {error}", status=200
        ) from error


def _doubt(headers: Mapping[str, str], *, indexed: bool) -> str:
    if headers.get("X-Consul-Results-Filtered-By-ACLs", "") == "true":
        return "the registry shows this token only a part of the answer"
    if headers.get("X-Consul-KnownLeader", "") == "false":
        return "the registry has no leader at the moment"
    return "" if indexed else "the answer has no X-Consul-Index: it is not a registry's own"


def kv_set(key: str, value: bytes) -> dict[str, Any]:
    """A transaction's operation that sets a key."""
    return {"KV": {"Verb": "set", "Key": key, "Value": base64.b64encode(value).decode()}}


def kv_cas(key: str, value: bytes, index: int) -> dict[str, Any]:
    """A transaction's operation that sets a key if its ModifyIndex is still `index` (0: if there is none)."""
    return {"KV": {"Verb": "cas", "Key": key, "Value": base64.b64encode(value).decode(), "Index": index}}


def kv_delete(key: str) -> dict[str, Any]:
    """A transaction's operation that deletes a key."""
    return {"KV": {"Verb": "delete", "Key": key}}


def kv_delete_cas(key: str, index: int) -> dict[str, Any]:
    """A transaction's operation that deletes a key if its ModifyIndex is still `index`."""
    return {"KV": {"Verb": "delete-cas", "Key": key, "Index": index}}


def kv_check_session(key: str, session: str) -> dict[str, Any]:
    """A transaction's operation that changes nothing and holds only while the session holds the key."""
    return {"KV": {"Verb": "check-session", "Key": key, "Session": session}}


def _text(body: bytes) -> str:
    """The start of an error's body on one line."""
    return " ".join(body[:300].decode(errors="replace").split()) or "nothing more"


def _kv(key: str) -> str:
    return "/v1/kv/" + quote(key, safe="/=")
