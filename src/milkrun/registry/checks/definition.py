"""What a registered check asks for: what to look at, how often, and how many results are believed. Pure."""

from __future__ import annotations

import msgspec

from milkrun.registry.checks.thresholds import Thresholds
from milkrun.registry.duration import counted, nanoseconds
from milkrun.registry.nouns import CheckSpec
from milkrun.registry.refusal import Refused

INTERVAL_S_AT_LEAST = 1.0
TIMEOUT_S = 10.0
TIMEOUT_S_AT_MOST = 60.0


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """Ask this URL."""

    url: str
    method: str = "GET"
    header: dict[str, list[str]] = {}
    body: str = ""
    skip_verify: bool = False
    server_name: str = ""
    output_bytes: int = 0


class Tcp(msgspec.Struct, frozen=True):
    """Connect to this HOST:PORT."""

    address: str


class Grpc(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the standard health service of this HOST:PORT[/SERVICE]."""

    address: str
    tls: bool = False
    skip_verify: bool = False
    server_name: str = ""


class Alias(msgspec.Struct, frozen=True):
    """Be as another service or node is; an empty node is this registry's own."""

    node: str
    service: str


class NotRun(msgspec.Struct, frozen=True):
    """Nothing is looked at, and why."""

    why: str


Look = Http | Tcp | Grpc | Alias | NotRun


class Plan(msgspec.Struct, frozen=True):
    """One check as it is run. An alias has no use for the times: it follows the catalog."""

    look: Look
    interval_s: float = INTERVAL_S_AT_LEAST
    timeout_s: float = TIMEOUT_S
    thresholds: Thresholds = Thresholds()


def _folded(field: str) -> str:
    return field.replace("_", "")


class _Sent(msgspec.Struct, rename=_folded):
    """The definition as it was sent, under its folded names."""

    http: str = ""
    method: str = ""
    header: dict[str, list[str]] = {}
    body: str = ""
    tcp: str = ""
    grpc: str = ""
    grpc_use_tls: bool = False
    alias_node: str = ""
    alias_service: str = ""
    tls_skip_verify: bool = False
    tls_server_name: str = ""
    interval: str | int | float = 0
    timeout: str | int | float = 0
    output_max_size: int = 0
    success_before_passing: int = 0
    failures_before_warning: int = 0
    failures_before_critical: int = 0


def plan_of(spec: CheckSpec) -> Plan:
    """How the check is run. Raises Refused (400) when its definition makes no sense."""
    try:
        sent = msgspec.convert(spec.probe, _Sent)
    except msgspec.ValidationError as error:
        raise Refused(400, f"Request decode failed: {error}") from error
    if sent.output_max_size < 0:
        raise Refused(400, "Invalid check: MaxOutputMaxSize must be positive")
    if sent.failures_before_warning > max(1, sent.failures_before_critical):
        raise Refused(
            400, "Invalid check: FailuresBeforeWarning cannot be higher than FailuresBeforeCritical"
        )
    timeout_s = _seconds(sent.timeout)
    return Plan(
        look=_look(spec.type, sent),
        interval_s=max(INTERVAL_S_AT_LEAST, _seconds(sent.interval)),
        timeout_s=min(timeout_s, TIMEOUT_S_AT_MOST) if timeout_s > 0 else TIMEOUT_S,
        thresholds=Thresholds(
            before_passing=sent.success_before_passing,
            before_warning=sent.failures_before_warning,
            before_critical=sent.failures_before_critical,
        ),
    )


def _look(kind: str, sent: _Sent) -> Look:
    match kind:
        case "http":
            return Http(
                url=sent.http,
                method=sent.method or "GET",
                header=sent.header,
                body=sent.body,
                skip_verify=sent.tls_skip_verify,
                server_name=sent.tls_server_name,
                output_bytes=sent.output_max_size,
            )
        case "tcp":
            return Tcp(sent.tcp)
        case "grpc":
            return Grpc(
                address=sent.grpc,
                tls=sent.grpc_use_tls,
                skip_verify=sent.tls_skip_verify,
                server_name=sent.tls_server_name,
            )
        case "alias":
            return Alias(sent.alias_node, sent.alias_service)
        case _:
            return NotRun(
                f"This registry does not run {kind} checks, so this one stays as it is: "
                "use an HTTP, TCP, gRPC or TTL check."
            )


def _seconds(value: str | float) -> float:
    if value == "":
        return 0.0
    try:
        return (nanoseconds(value) if isinstance(value, str) else counted(value)) / 1e9
    except ValueError as error:
        raise Refused(400, f"Request decode failed: {error}") from error
