"""A registry's whole state as one file, and back. Pure.

The file is an archive as Consul's are, which Consul's own tools save, inspect and restore: meta.json says what
they show of it, state.bin is ours: a first line that names the format, and MessagePack. Files of the first
format, which were that line, the SHA-256 of what followed, and compressed MessagePack, are still read.
Lock-delays and events are not part of it: after a restore no lock is so fresh that its holder might not know.
"""

from __future__ import annotations

import hashlib
import zlib

import msgspec

from milkrun.errors import InputRefused
from milkrun.registry import agent, archive, catalog, kv, sessions
from milkrun.registry.access.tokens import Policy, Role, Token, Tokens
from milkrun.registry.autopilot import Configuration
from milkrun.registry.nouns import Check, CheckSpec, Entry, Node, Session

FIRST_LINE = b"MILKRUN REGISTRY SNAPSHOT 1\n"
BYTES_AT_MOST = 64 * 1024 * 1024
UNPACKED_BYTES_AT_MOST = 512 * 1024 * 1024
_DIGEST_BYTES = 32
_META, _STATE = "meta.json", "state.bin"
_NO_PEERS = "kA=="
"""An empty list, as MessagePack in base64: where Consul keeps its servers."""
_AGAIN = "take another one: a part of this is missing or changed"


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """All that a registry keeps. `node` is the name of its own node, `index` the state's index."""

    node: str
    index: int
    nodes: list[Node]
    services: list[catalog.ServiceRow]
    checks: list[Check]
    specs: list[CheckSpec]
    sessions: list[Session]
    entries: list[Entry]
    tokens: list[Token] = []
    policies: list[Policy] = []
    roles: list[Role] = []
    autopilot: Configuration = Configuration()


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Contents)


def take(
    index: int,
    known: catalog.Catalog,
    own: agent.Agent,
    live: sessions.Sessions,
    store: kv.KeyValues,
    *,
    access: Tokens,
    pilot: Configuration,
) -> Contents:
    """The state as it is now."""
    return Contents(
        node=own.node,
        index=index,
        nodes=list(known.nodes.values()),
        services=[
            catalog.ServiceRow(node, each) for node, all_ in known.services.items() for each in all_.values()
        ],
        checks=[each for all_ in known.checks.values() for each in all_.values()],
        specs=list(own.specs.values()),
        sessions=list(live.live.values()),
        entries=store.under(""),
        tokens=list(access.tokens.values()),
        policies=list(access.policies.values()),
        roles=list(access.roles.values()),
        autopilot=pilot,
    )


def pack(whole: Contents) -> bytes:
    """The file."""
    state = FIRST_LINE + _encode(whole)
    meta = {
        "Version": 1,
        "ID": f"milkrun-{whole.index}",
        "Index": whole.index,
        "Term": 1,
        "Peers": _NO_PEERS,
        "Configuration": {"Servers": []},
        "ConfigurationIndex": 0,
        "Size": len(state),
    }
    return archive.packed({_META: msgspec.json.encode(meta), _STATE: state})


def unpack(file: bytes) -> Contents:
    """What the file holds. Raises InputRefused for one that is not ours, or that is not whole."""
    if file.startswith(FIRST_LINE):
        return _of_first_format(file)
    if not file.startswith(archive.HEAD):
        raise _refused("it is no snapshot of a Milkrun registry", "name a file that `snapshot save` wrote")
    try:
        files = archive.unpacked(file, UNPACKED_BYTES_AT_MOST)
    except ValueError as error:
        raise _refused(f"it is damaged: {error}", _AGAIN) from error
    state = files.get(_STATE, memoryview(b""))
    if state[: len(FIRST_LINE)] != FIRST_LINE:
        raise _refused("it is damaged: it holds no state", _AGAIN)
    return _decoded(state[len(FIRST_LINE) :])


def _of_first_format(file: bytes) -> Contents:
    head = len(FIRST_LINE) + _DIGEST_BYTES
    digest, body = file[len(FIRST_LINE) : head], file[head:]
    if hashlib.sha256(body).digest() != digest:
        raise _refused("it is damaged: its contents do not have the checksum that it names", _AGAIN)
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(body, UNPACKED_BYTES_AT_MOST)
        if not unpacker.eof:
            raise _refused(f"it holds more than {UNPACKED_BYTES_AT_MOST} bytes", _AGAIN)
    except zlib.error as error:
        raise _refused(f"it cannot be read: {error}", _AGAIN) from error
    return _decoded(memoryview(unpacked))


def _decoded(body: memoryview) -> Contents:
    try:
        return _consistent(_decoder.decode(body))
    except msgspec.DecodeError as error:
        raise _refused(f"it cannot be read: {error}", _AGAIN) from error


def on_node(whole: Contents, node: str) -> Contents:
    """The same state for a registry whose own node has this name: what its node had is this node's."""
    old = whole.node
    if old == node:
        return whole
    replace = msgspec.structs.replace
    return replace(
        whole,
        node=node,
        nodes=[each for each in whole.nodes if each.node not in (old, node)]
        + [replace(each, node=node) for each in whole.nodes if each.node == old],
        services=[replace(each, node=node) if each.node == old else each for each in whole.services],
        checks=[replace(each, node=node) if each.node == old else each for each in whole.checks],
        sessions=[replace(each, node=node) if each.node == old else each for each in whole.sessions],
    )


def _consistent(whole: Contents) -> Contents:
    """A checksum does not make sense of a file: everything must stand on something that is there."""
    nodes = {each.node for each in whole.nodes}
    services = {(each.node, each.service.id) for each in whole.services}
    checks = {(each.node, each.check_id) for each in whole.checks}
    if (
        any(node not in nodes for node, _ in (*services, *checks))
        or any(each.service_id and (each.node, each.service_id) not in services for each in whole.checks)
        or any((whole.node, each.check_id) not in checks for each in whole.specs)
        or any(each.node not in nodes for each in whole.sessions)
    ):
        raise _refused("it names nodes, services or checks that it does not hold", "take another one")
    return whole


def _refused(why: str, remedy: str) -> InputRefused:
    return InputRefused(f"the snapshot is refused: {why}; nothing was changed", remedy=remedy)
