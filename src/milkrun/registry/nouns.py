"""What the registry keeps, in the shape in which Consul's API shows it. Pure.

The same structs are encoded as JSON for clients and as MessagePack for the disk: an answer needs no copying.
"""

from __future__ import annotations

from typing import Any

import msgspec

DATACENTER = "dc1"
NODE_CHECK = "serfHealth"
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE = "_service_maintenance:"
OWN_SERVICE = "consul"

PASSING = "passing"
WARNING = "warning"
CRITICAL = "critical"
STATUSES = (PASSING, WARNING, CRITICAL)
"""From the best to the worst."""

PROBED = ("http", "tcp", "grpc", "alias")
"""The kinds of checks that this registry looks after itself."""


def consul_name(field: str) -> str:
    """The field's name as Consul writes it: `service_id` is `ServiceID`."""
    return "".join("ID" if part == "id" else part.capitalize() for part in field.split("_"))


class Weights(msgspec.Struct, frozen=True, rename=consul_name):
    """How much an instance counts while it passes, and while it warns."""

    passing: int = 1
    warning: int = 1


class Node(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """A host in the catalog."""

    id: str = ""
    node: str
    address: str
    datacenter: str = DATACENTER
    tagged_addresses: dict[str, str] | None = None
    meta: dict[str, str] | None = None
    create_index: int = 0
    modify_index: int = 0


class Service(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """One instance of a service on a node."""

    id: str
    service: str
    tags: list[str] = []
    address: str = ""
    tagged_addresses: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    meta: dict[str, str] | None = None
    port: int = 0
    weights: Weights = Weights()
    enable_tag_override: bool = False
    create_index: int = 0
    modify_index: int = 0


class Check(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """One health check's state. An empty `service_id` means that it speaks of the whole node."""

    node: str
    check_id: str
    name: str
    status: str = CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = ""
    service_name: str = ""
    service_tags: list[str] = []
    type: str = ""
    definition: dict[str, Any] = {}
    create_index: int = 0
    modify_index: int = 0


class CheckSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How this registry's own agent keeps a check: by a time to live, or by a probe.

    `probe` is the definition as it was sent, with folded field names; empty for a TTL check.
    """

    check_id: str
    name: str = ""
    notes: str = ""
    status: str = ""
    service_id: str = ""
    type: str = "ttl"
    ttl_s: float = 0.0
    deregister_after_s: float = 0.0
    probe: dict[str, Any] = {}

    @property
    def kept(self) -> bool:
        """Whether its status means something: somebody reports, or a probe is run. Nothing else may reap."""
        return bool(self.ttl_s) or self.type in PROBED


class ServiceCheckRef(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """A service's check that a session depends on."""

    id: str
    namespace: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """A lease that holds locks. `lock_delay` is in nanoseconds, `ttl` is a duration as its maker wrote it."""

    id: str
    name: str = ""
    node: str
    lock_delay: int = 15_000_000_000
    behavior: str = "release"
    ttl: str = msgspec.field(name="TTL", default="")
    node_checks: list[str] = []
    service_checks: list[ServiceCheckRef] | None = None
    create_index: int = 0
    modify_index: int = 0

    @property
    def check_ids(self) -> list[str]:
        """The checks on its node whose failing ends the session."""
        return [*self.node_checks, *(ref.id for ref in self.service_checks or ())]


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename=consul_name):
    """One key and its value; None stands for the empty value, as Consul shows it."""

    lock_index: int = 0
    key: str
    flags: int = 0
    value: bytes | None = None
    session: str | msgspec.UnsetType = msgspec.UNSET
    create_index: int = 0
    modify_index: int = 0
