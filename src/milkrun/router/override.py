"""The cookie by which a tester asks for a version: `<service>:<version>:<until>:<HMAC-SHA256 of that>`. Pure.

`until` are seconds since 1970. Whoever has the key can make one; it is good for its service only, and ends by itself.
"""

from __future__ import annotations

import hashlib
import hmac

from milkrun.model import ServiceName, VersionName, service_name, version_name


def cookie_name(service: ServiceName) -> str:
    """The cookie's name: each service has its own, for one site may have several."""
    return f"milkrun-version-{service}"


def cookie_value(service: ServiceName, version: VersionName, until: int, key: bytes) -> str:
    """The cookie's value. Neither a service's nor a version's name has a colon."""
    said = f"{service_name(service)}:{version_name(version)}:{until}"
    return f"{said}:{hmac.new(key, said.encode(), hashlib.sha256).hexdigest()}"
