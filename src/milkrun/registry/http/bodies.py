"""Request bodies, read as Go reads JSON: names count without case and underscores, null means not given.

So `{"Name": ..}`, `{"name": ..}` and `{"enable_tag_override": ..}` are understood: clients send them all.
Unknown fields are passed over: newer clients send fields that this API does not know.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from milkrun.registry.checks.definition import plan_of
from milkrun.registry.duration import counted, nanoseconds
from milkrun.registry.http.numbers import Int, parsed
from milkrun.registry.nouns import STATUSES, CheckSpec, Service, Weights
from milkrun.registry.refusal import Refused

REAP_AFTER_S_AT_LEAST = 60.0

_OPAQUE = frozenset({"meta", "nodemeta", "header", "definition"})
"""Fields whose own field names are data, and so is all below them."""
_NAMES_ARE_DATA = frozenset({"taggedaddresses"})
"""Fields whose own field names are data, and below them are fields again."""

_Body = TypeVar("_Body", bound=msgspec.Struct)
Duration = str | int | float


def folded(field: str) -> str:
    """The field's name in a folded body."""
    return field.replace("_", "")


class CheckBody(msgspec.Struct, rename=folded):
    """A check, as a service registration or a check registration brings it."""

    id: str = ""
    check_id: str = ""
    name: str = ""
    notes: str = ""
    status: str = ""
    service_id: str = ""
    ttl: Duration = 0
    interval: Duration = 0
    timeout: Duration = 0
    deregister_critical_service_after: Duration = 0
    http: str = ""
    tcp: str = ""
    grpc: str = ""
    args: list[str] = []
    script_args: list[str] = []
    docker_container_id: str = ""
    alias_node: str = ""
    alias_service: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing was given, which counts as no check at all."""
        return self == CheckBody()


class WeightsBody(msgspec.Struct, rename=folded):
    """How much an instance counts."""

    passing: Int = 0
    warning: Int = 0


class AddressBody(msgspec.Struct, rename=folded):
    """Where a service is to be found from some place."""

    address: str = ""
    port: Int = 0

    def as_consul_does(self) -> dict[str, Any]:
        """The address as answers show it."""
        return {"Address": self.address, "Port": self.port}


class ServiceBody(msgspec.Struct, rename=folded):
    """A service, as the agent's and the catalog's registrations bring it."""

    id: str = ""
    name: str = ""
    service: str = ""
    tags: list[str] = []
    address: str = ""
    tagged_addresses: dict[str, AddressBody] | None = None
    meta: dict[str, str] | None = None
    port: Int = 0
    weights: WeightsBody | None = None
    enable_tag_override: bool = False
    check: dict[str, Any] | None = None
    checks: list[dict[str, Any]] = []


def unknown_fields(value: Any, shape: type[msgspec.Struct]) -> list[str]:
    """The fields of the JSON object, as they were sent, that such a body has not and that say something."""
    known = {field.encode_name for field in msgspec.structs.fields(shape)}
    if not isinstance(value, dict):
        return []
    return [name for name, each in value.items() if each and folded(name.lower()) not in known]


def decode(raw: bytes, shape: type[_Body], *, what: str = "Request decode failed") -> _Body:
    """The body in its shape. Raises Refused (400) with what is wrong."""
    if not raw.strip():
        raise Refused(400, f"{what}: EOF")
    try:
        return msgspec.convert(fold(parsed(raw)), shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"{what}: {error or 'too deep'}") from error


def fold(value: Any) -> Any:
    """The JSON value with its field names in lower case without underscores, and without its nulls."""
    if isinstance(value, dict):
        found = {}
        for name, each in value.items():
            field = folded(name.lower())
            if each is None:
                continue
            if field in _NAMES_ARE_DATA and isinstance(each, dict):
                found[field] = {inner: fold(part) for inner, part in each.items() if part is not None}
            else:
                found[field] = each if field in _OPAQUE else fold(each)
        return found
    if isinstance(value, list):
        return [fold(each) for each in value if each is not None]
    return value


def duration_s(value: Duration, *, what: str = "Request decode failed") -> float:
    """A duration in seconds: Go's text, or a number of nanoseconds."""
    if value == "":
        return 0.0
    try:
        return (nanoseconds(value) if isinstance(value, str) else counted(value)) / 1e9
    except ValueError as error:
        raise Refused(400, f"{what}: {error}") from error


def service_of(body: ServiceBody, name: str) -> Service:
    """The service that the body describes."""
    weights = body.weights
    if weights and weights.passing < 1:
        raise Refused(400, "Invalid Weights: Passing must be greater than 0")
    if weights and weights.warning < 0:
        raise Refused(400, "Invalid Weights: Warning must be greater or equal than 0")
    if body.address in ("0.0.0.0", "::", "[::]"):  # noqa: S104  refused, not bound
        raise Refused(400, "Invalid service address")
    addresses = {place: address.as_consul_does() for place, address in (body.tagged_addresses or {}).items()}
    return Service(
        id=body.id or name,
        service=name,
        tags=body.tags,
        address=body.address,
        tagged_addresses=addresses or msgspec.UNSET,
        meta=body.meta or None,
        port=body.port,
        weights=Weights(weights.passing, weights.warning) if weights else Weights(),
        enable_tag_override=body.enable_tag_override,
    )


def check_of(raw: dict[str, Any], *, default_id: str, default_name: str, service_id: str) -> CheckSpec:
    """The check that the folded JSON describes."""
    try:
        body = msgspec.convert(raw, CheckBody)
    except msgspec.ValidationError as error:
        raise Refused(400, f"Request decode failed: {error}") from error
    kind = _kind(body)
    ttl_s, interval_s = duration_s(body.ttl), duration_s(body.interval)
    if ttl_s > 0 and interval_s > 0:
        raise Refused(400, "Invalid check: Interval and TTL cannot both be specified")
    if kind == "ttl" and ttl_s <= 0:
        raise Refused(400, "Invalid check: TTL must be > 0 for TTL checks")
    if kind in ("http", "tcp", "script", "docker", "grpc") and interval_s <= 0:
        raise Refused(400, "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks")
    if kind in ("script", "docker"):
        raise Refused(
            400,
            "Scripts are disabled on this agent; no setting enables them: let the service report to a TTL check",
        )
    if kind == "alias" and ttl_s > 0:
        raise Refused(400, "Invalid check: TTL must be not be set for Alias checks")
    if body.status not in ("", *STATUSES):
        raise Refused(400, "Status for checks must 'passing', 'warning', 'critical'")
    after_s = duration_s(body.deregister_critical_service_after)
    spec = CheckSpec(
        check_id=body.check_id or body.id or default_id,
        name=body.name or default_name,
        notes=body.notes,
        status=body.status,
        service_id=service_id or body.service_id,
        type=kind,
        ttl_s=ttl_s if kind == "ttl" else 0.0,
        deregister_after_s=max(after_s, REAP_AFTER_S_AT_LEAST) if after_s > 0 else 0.0,
        probe={} if kind == "ttl" else raw,
    )
    if spec.probe:
        plan_of(spec)
    return spec


def checks_of(body: ServiceBody, service: Service) -> list[CheckSpec]:
    """The checks that come with a service: `Checks`, or `Check` when it says anything."""
    given = [each for each in body.checks if each]
    if body.check:
        given.insert(0, body.check)
    return [
        check_of(
            raw,
            default_id=f"service:{service.id}" + (f":{place}" if len(given) > 1 else ""),
            default_name=f"Service '{service.service}' check",
            service_id=service.id,
        )
        for place, raw in enumerate(given, start=1)
    ]


def _kind(body: CheckBody) -> str:
    kinds = {
        "http": body.http,
        "tcp": body.tcp,
        "grpc": body.grpc,
        "docker": body.docker_container_id,
        "script": body.args or body.script_args,
        "alias": body.alias_node or body.alias_service,
    }
    return next((kind for kind, given in kinds.items() if given), "ttl")
