"""What a registry holds, and what it holds after it was stopped and started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance.registries import Server, milkrun, stop


def remains(server: Server) -> dict[str, Any]:
    """Everything that is kept on the disk, without what changes by itself."""
    entries = server.get("/v1/kv/", recurse="")
    return {
        "keys": entries.json if entries.status == 200 else [],
        "nodes": [_lasting(node) for node in server.get("/v1/internal/ui/nodes").json],
        "sessions": server.get("/v1/session/list").json,
    }


def _lasting(node: dict[str, Any]) -> dict[str, Any]:
    """The node without how its checks stand: those look around, also meanwhile."""
    checks = sorted(
        (each["CheckID"], each["ServiceID"], each["Name"], each["Notes"]) for each in node["Checks"]
    )
    return {**node, "Checks": checks}


def after_a_restart(server: Server, folder: Path) -> dict[str, Any]:
    """What another registry finds on the disk of this one, which ends."""
    stop(server)
    with milkrun(folder) as next_one:
        return remains(next_one)
