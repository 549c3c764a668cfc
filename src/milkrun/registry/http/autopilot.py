"""/v1/operator/autopilot: how the servers are, and how they are to be looked after."""

from __future__ import annotations

from typing import Any

import msgspec

from milkrun.registry import commands
from milkrun.registry.access.rules import Level, Resource
from milkrun.registry.autopilot import Configuration
from milkrun.registry.duration import spelled
from milkrun.registry.engine import Engine
from milkrun.registry.http.agent import VERSION
from milkrun.registry.http.asking import change, require
from milkrun.registry.http.bodies import Duration, decode, duration_s, folded, unknown_fields
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.numbers import Int, parsed
from milkrun.registry.http.route import Route
from milkrun.registry.http.status import RPC_PORT
from milkrun.registry.refusal import Refused

_WHAT = "Bad request: Error parsing autopilot config"


class _Body(msgspec.Struct, rename=folded):
    cleanup_dead_servers: bool = False
    last_contact_threshold: Duration = 0
    max_trailing_logs: Int = 0
    min_quorum: Int = 0
    server_stabilization_time: Duration = 0
    redundancy_zone_tag: str = ""
    disable_upgrade_migration: bool = False
    upgrade_version_tag: str = ""
    create_index: Int = 0
    modify_index: Int = 0


async def server_health(engine: Engine, request: Request) -> Reply:
    """How the servers are: whoever answers is well."""
    require(engine, request, Resource.OPERATOR, "", Level.READ)
    own = {
        "ID": engine.own.id,
        "Name": engine.own.node,
        "Address": f"{engine.own.address}:{RPC_PORT}",
        "SerfStatus": "alive",
        "Version": VERSION,
        "Leader": True,
        "LastContact": "0s",
        "LastIndex": engine.machine.ledger.index,
        "Healthy": True,
        "Voter": True,
    }
    return Reply.json({"Healthy": True, "FailureTolerance": 0, "Servers": [own]})


async def configuration(engine: Engine, request: Request) -> Reply:
    """The settings."""
    require(engine, request, Resource.OPERATOR, "", Level.READ)
    return Reply.json(_shown(engine.machine.autopilot.configuration))


async def configure(engine: Engine, request: Request) -> Reply:
    """The settings are the body's, what it leaves out is off. With `cas` only if nobody changed them meanwhile."""
    require(engine, request, Resource.OPERATOR, "", Level.WRITE)
    raw = await request.body()
    body = decode(raw, _Body, what=_WHAT)
    if strange := unknown_fields(parsed(raw), _Body):
        raise Refused(400, f'{_WHAT}: json: unknown field "{strange[0][:128]}"')
    if body.redundancy_zone_tag or body.disable_upgrade_migration or body.upgrade_version_tag:
        raise Refused(400, f"{_WHAT}: zones and upgrades of servers are for Consul Enterprise")
    new = Configuration(
        cleanup_dead_servers=body.cleanup_dead_servers,
        last_contact_threshold_s=duration_s(body.last_contact_threshold, what=_WHAT),
        max_trailing_logs=body.max_trailing_logs,
        min_quorum=body.min_quorum,
        server_stabilization_time_s=duration_s(body.server_stabilization_time, what=_WHAT),
    )
    try:
        cas = request.unsigned("cas")
    except Refused as refused:
        raise Refused(400, f"Bad request: Error parsing cas value: {refused.message}") from refused
    done = await change(engine, request, commands.ConfigureAutopilot(new, cas))
    return Reply.encoded(b"true" if done else b"false")


def _shown(now: Configuration) -> dict[str, Any]:
    return {
        "CleanupDeadServers": now.cleanup_dead_servers,
        "LastContactThreshold": spelled(now.last_contact_threshold_s),
        "MaxTrailingLogs": now.max_trailing_logs,
        "MinQuorum": now.min_quorum,
        "ServerStabilizationTime": spelled(now.server_stabilization_time_s),
        "RedundancyZoneTag": "",
        "DisableUpgradeMigration": False,
        "UpgradeVersionTag": "",
        "CreateIndex": now.create_index,
        "ModifyIndex": now.modify_index,
    }


ROUTES = (
    Route("GET", "/v1/operator/autopilot/health", server_health, "operator", "read"),
    Route("GET", "/v1/operator/autopilot/configuration", configuration, "operator", "read"),
    Route("PUT", "/v1/operator/autopilot/configuration", configure, "operator", "write"),
)
