"""What a registry holds, and what it holds after it was stopped and started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from conformance.registries import Server, milkrun, stop


def remains(server: Server) -> dict[str, Any]:
    """Everything that is kept on the disk, without what changes by itself."""
    entries = server.get("/v1/kv/", recurse="")
    nodes = server.get("/v1/catalog/nodes").json
    of_nodes = {
        each["Node"]: server.get(f"/v1/catalog/node/{quote(each['Node'], safe='')}").json for each in nodes
    }
    checks = server.get("/v1/health/state/any").json
    return {
        "keys": entries.json if entries.status == 200 else [],
        "nodes": of_nodes,
        "checks": sorted((each["Node"], each["CheckID"], each["ServiceID"]) for each in checks),
        "sessions": server.get("/v1/session/list").json,
    }


def after_a_restart(server: Server, folder: Path) -> dict[str, Any]:
    """What another registry finds on the disk of this one, which ends."""
    stop(server)
    with milkrun(folder) as next_one:
        return remains(next_one)
