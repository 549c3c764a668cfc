"""What a front asks for that Envoy is not told to do. Pure. HAProxy does all of it."""

from __future__ import annotations

from collections.abc import Iterator

from milkrun.errors import DataPlaneError
from milkrun.router.front import Front


def refuse(front: Front) -> None:
    """Raises DataPlaneError for what must not be served without: who asked for TLS gets no plain text."""
    if front.certificates:
        raise DataPlaneError(
            f"{front.name} has certificates, which the router does not give to Envoy",
            remedy='use data_plane = "haproxy" for it',
        )


def missing(front: Front) -> Iterator[str]:
    """What is served without, for the router's alarms."""
    if front.trust:
        yield f"{front.name} has trust: Envoy believes nobody in what they say of who called them"
    for service, traffic in sorted(front.services.items()):
        if traffic.override:
            yield f"{service} has traffic.override: Envoy lets no tester choose a version"
        if traffic.mirror:
            yield f"{service} has traffic.mirror: the router has Envoy make no copies"
