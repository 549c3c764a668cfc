"""What lies in files that only the router's user reads, and its own Envoy with it. Pure: paths, no content.

Envoy reads the files itself, so no key is in what it is told, in what it shows, or in what other Envoys get.
"""

from __future__ import annotations

import msgspec


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """The certificates, each with its key in one PEM file, the first for who asks for no name that is there; and the
    key of testers' cookies, with what changes when it does.
    """

    certificates: tuple[str, ...] = ()
    override_key: str = ""
    override_sign: str = ""


NONE = Secrets()
"""Another Envoy's."""
