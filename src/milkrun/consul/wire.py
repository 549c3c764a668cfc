"""The registry's JSON, as Consul writes it, in typed structs. Only the fields that we read.

Source: Consul's HTTP API documentation; shapes checked against Consul 1.8.7 by the contract suite.
"""

from __future__ import annotations

from typing import Any

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON they should be: also for bad UTF-8 and for too deep nesting."""


class Pair(msgspec.Struct, rename="pascal", kw_only=True):
    """One KV entry. `value` is base64 on the wire and null for an empty one; `data` is what it stands for."""

    key: str
    value: bytes | None = None
    flags: int = 0
    lock_index: int = 0
    create_index: int = 0
    modify_index: int = 0
    session: str | None = None

    @property
    def data(self) -> bytes:
        """The stored bytes."""
        return self.value or b""


class Node(msgspec.Struct, kw_only=True):
    """The host part of a health answer."""

    name: str = msgspec.field(name="Node")
    address: str = msgspec.field(name="Address", default="")


class Service(msgspec.Struct, kw_only=True):
    """The service part of a health answer, and of /v1/agent/services."""

    id: str = msgspec.field(name="ID")
    service: str = msgspec.field(name="Service")
    tags: list[str] | None = msgspec.field(name="Tags", default=None)
    meta: dict[str, str] | None = msgspec.field(name="Meta", default=None)
    port: int = msgspec.field(name="Port", default=0)
    address: str = msgspec.field(name="Address", default="")
    weights: dict[str, int] | None = msgspec.field(name="Weights", default=None)


class Check(msgspec.Struct, kw_only=True):
    """One health check's state. An empty `service_id` means that it speaks of the whole node."""

    check_id: str = msgspec.field(name="CheckID")
    status: str = msgspec.field(name="Status", default="critical")
    output: str = msgspec.field(name="Output", default="")
    notes: str = msgspec.field(name="Notes", default="")
    service_id: str = msgspec.field(name="ServiceID", default="")
    service_name: str = msgspec.field(name="ServiceName", default="")


class HealthEntry(msgspec.Struct, rename="pascal", kw_only=True):
    """One row of /v1/health/service/<name>."""

    node: Node
    service: Service
    checks: list[Check] = []


class Created(msgspec.Struct, kw_only=True):
    """The answer to PUT /v1/session/create."""

    id: str = msgspec.field(name="ID")


class TxnError(msgspec.Struct, rename="pascal", kw_only=True):
    """Why one operation of a transaction did not hold."""

    op_index: int
    what: str


class TxnAnswer(msgspec.Struct, rename="pascal", kw_only=True):
    """The answer to PUT /v1/txn."""

    results: list[dict[str, Any]] | None = None
    errors: list[TxnError] | None = None


class TtlCheck(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A check that its owner must report to, or it turns critical. Durations are Go's, as `15s`."""

    check_id: str = msgspec.field(name="CheckID")
    name: str = msgspec.field(name="Name")
    ttl: str = msgspec.field(name="TTL")
    status: str = msgspec.field(name="Status", default="critical")
    notes: str = msgspec.field(name="Notes", default="")
    deregister_after: str = msgspec.field(name="DeregisterCriticalServiceAfter", default="")


class Registration(msgspec.Struct, kw_only=True):
    """The body of PUT /v1/agent/service/register."""

    id: str = msgspec.field(name="ID")
    name: str = msgspec.field(name="Name")
    address: str = msgspec.field(name="Address")
    port: int = msgspec.field(name="Port")
    tags: list[str] = msgspec.field(name="Tags", default_factory=list)
    meta: dict[str, str] = msgspec.field(name="Meta", default_factory=dict)
    check: TtlCheck | None = msgspec.field(name="Check", default=None)
