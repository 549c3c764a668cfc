"""One connection to a registry that never asks twice: what is not answered stays unknown."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from urllib.parse import quote

import msgspec
from linearizability import operations as ops
from linearizability.operations import Answer, Entry


class Unknown(Exception):
    """The request was sent, and nobody can say what became of it."""


class NotSent(Exception):
    """Nobody listens: the request was never sent."""


class _Errors(msgspec.Struct, rename="pascal"):
    op_index: int


class _Result(msgspec.Struct, rename="upper"):
    kv: Entry


class _Session(msgspec.Struct, rename="upper"):
    id: str


class _Results(msgspec.Struct, rename="pascal"):
    results: list[_Result] | None = None
    errors: list[_Errors] | None = None


_entries = msgspec.json.Decoder(tuple[Entry, ...])
_results = msgspec.json.Decoder(_Results)
_VERBS = {
    ops.Put: "set",
    ops.Cas: "cas",
    ops.Acquire: "lock",
    ops.Release: "unlock",
    ops.Delete: "delete",
    ops.DeleteCas: "delete-cas",
    ops.DeleteTree: "delete-tree",
    ops.Get: "get",
    ops.Tree: "get-tree",
    ops.CheckIndex: "check-index",
    ops.CheckSession: "check-session",
    ops.CheckNotExists: "check-not-exists",
}


class Line:
    """A connection, opened when it is needed and closed after any doubt."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, operation: ops.Operation) -> Answer:
        """The answer. Raises NotSent and Unknown; the line is closed when nobody waits for the answer any more."""
        return understood(operation, *await self._exchange(*request(operation)))

    async def watch(self, operation: ops.Get | ops.Tree, index: int) -> ops.Read:
        """What is there once it is newer than `index`."""
        _, path, _ = request(operation)
        path += f"{'&' if '?' in path else '?'}index={index}&wait=600s"
        answer = understood(operation, *await self._exchange("GET", path, b""))
        assert isinstance(answer, ops.Read)
        return answer

    async def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, int, bytes]:
        """Status, X-Consul-Index (0: none) and body."""
        reader, writer = await self._open()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            return await _reply(reader)
        except (OSError, EOFError) as error:
            self.close()
            raise Unknown from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                raise NotSent from error
        return self._reader, self._writer

    def close(self) -> None:
        """What was sent may still arrive: the registry is not told to forget it."""
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None


async def _reply(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    data = await reader.readexactly(int(headers[b"content-length"]))
    return int(first.split()[1]), int(headers.get(b"x-consul-index", b"0")), data


def request(operation: ops.Operation) -> tuple[str, str, bytes]:  # noqa: PLR0912  one arm an operation
    """Method, path and body."""
    match operation:
        case ops.Put(key, value, flags):
            return "PUT", _kv(key) + (f"?flags={flags}" if flags else ""), value
        case ops.Cas(key, value, index, flags):
            return "PUT", f"{_kv(key)}?cas={index}&flags={flags}", value
        case ops.Acquire(key, value, session):
            return "PUT", f"{_kv(key)}?acquire={session}", value
        case ops.Release(key, value, session):
            return "PUT", f"{_kv(key)}?release={session}", value
        case ops.Delete(key):
            return "DELETE", _kv(key), b""
        case ops.DeleteCas(key, index):
            return "DELETE", f"{_kv(key)}?cas={index}", b""
        case ops.DeleteTree(prefix):
            return "DELETE", f"{_kv(prefix)}?recurse", b""
        case ops.Get(key):
            return "GET", _kv(key), b""
        case ops.Tree(prefix):
            return "GET", f"{_kv(prefix)}?recurse", b""
        case ops.Txn(steps):
            return "PUT", "/v1/txn", msgspec.json.encode([{"KV": _step(step)} for step in steps])
        case ops.CreateSession(behavior):
            body = {"LockDelay": "0s", "Behavior": behavior}
            return "PUT", "/v1/session/create", msgspec.json.encode(body)
        case ops.EndSession(session):
            return "PUT", f"/v1/session/destroy/{session}", b""
        case ops.AskSession(session):
            return "GET", f"/v1/session/info/{session}", b""
        case _:
            raise TypeError(f"no request: {operation}")


def _kv(key: str) -> str:
    return f"/v1/kv/{quote(key)}"


def _step(step: ops.Operation) -> dict[str, Any]:
    fields = {name.capitalize(): value for name, value in msgspec.structs.asdict(step).items()}
    if "Prefix" in fields:
        fields["Key"] = fields.pop("Prefix")
    if "Value" in fields:
        fields["Value"] = base64.b64encode(fields["Value"]).decode()
    return {"Verb": _VERBS[type(step)], **fields}


def understood(operation: ops.Operation, status: int, index: int, data: bytes) -> Answer:
    """The answer as a value. What no registry should answer is an AssertionError."""
    match operation, status:
        case ((ops.Get() | ops.Tree()), (200 | 404)):
            return ops.Read(index, _entries.decode(data) if status == 200 else ())
        case ops.Txn(), (200 | 409):
            found = _results.decode(data)
            if found.errors:
                return ops.Undone(tuple(error.op_index for error in found.errors))
            return ops.Done(tuple(result.kv for result in found.results or ()))
        case ops.CreateSession(), 200:
            return ops.Created(msgspec.json.decode(data, type=_Session).id)
        case ops.AskSession(), 200:
            return ops.Said(yes=bool(msgspec.json.decode(data)))
        case ops.Acquire(), 500 if b"invalid session" in data:
            return ops.NoSession()
        case _, 200:
            return ops.Said(yes=msgspec.json.decode(data, type=bool))
    raise AssertionError(f"{operation} was answered {status}: {data[:200]!r}")
