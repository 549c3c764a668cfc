"""What a blocking query waits for: a topic, so that another service's change does not wake it. Pure."""

from __future__ import annotations

NODES = "nodes"
SERVICES = "services"
CHECKS = "checks"
SESSIONS = "sessions"
EVENTS = "events"
PROBES = "probes"
"""The definitions of the checks that this registry runs."""


def node(name: str) -> str:
    """Anything on this node: its services, its checks, itself."""
    return f"node:{name}"


def service(name: str) -> str:
    """Anything that the health answer of this service shows."""
    return f"service:{name}"


def service_of_node(node: str, service_id: str) -> str:
    """One instance as its agent registered it, whatever its checks say."""
    return f"instance:{len(node)}:{node}:{service_id}"


def session(session_id: str) -> str:
    """This session."""
    return f"session:{session_id}"


def key(name: str) -> str:
    """This key of the KV store."""
    return f"key:{name}"


def under(prefix: str) -> str:
    """Every key that starts with `prefix`."""
    return f"under:{prefix}"
