"""What commands write down for the rollout engine."""

from __future__ import annotations

import getpass
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from milkrun.cli.quiet import quiet_logs
from milkrun.consul import Registry, keys
from milkrun.errors import Conflict, Degraded
from milkrun.model import EngineReport, ServiceName, service_name, version_name
from milkrun.rollout.drawing import drawn
from milkrun.rollout.git import Git
from milkrun.rollout.plan import Kind, Plan
from milkrun.rollout.state import Intent, Verb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milkrun.cli.place import Place
    from milkrun.consul import Address
    from milkrun.rollout.receipt import Receipt


async def planned(
    place: Place,
    service: str,
    version: str,
    *,
    strategy: Kind | None = None,
    replicas: int | None = None,
    digest: str = "",
    history: Iterable[Receipt] = (),
) -> Plan:
    """The plan, from what git says now. Raises Conflict when its digest is another one."""
    environment = place.environment()
    git = await Git.open(place.folder().path, environment.git.branch if environment else "main")
    try:
        name = service_name(service)
        rollout = f"{name}-{version}-{secrets.token_hex(3)}"
        found, _ = await drawn(
            git, rollout, name, version_name(version), strategy=strategy, replicas=replicas, history=history
        )
    finally:
        await git.close()
    if digest and digest != found.digest:
        raise Conflict(
            f"the plan is no longer the one that was looked at: its digest is {found.digest}, not {digest}",
            remedy=f"milkrun rollout plan {service} {version}",
        )
    return found


def begin(plan: Plan, *, strategy: Kind | None, replicas: int | None, digest: str, reason: str) -> Intent:
    """The wish that this plan is carried out."""
    return msgspec.structs.replace(
        intent("start", reason=reason),
        rollout=plan.id,
        version=plan.version,
        strategy=strategy,
        replicas=replicas,
        digest=digest,
    )


def intent(verb: Verb, *, reason: str = "", full: bool = False, rollout: str = "") -> Intent:
    """What somebody wants of which rollout, and who it is."""
    now = time.time()
    return Intent(
        id=f"{now:.3f}-{secrets.token_hex(3)}",
        verb=verb,
        by=_who(),
        at=now,
        rollout=rollout,
        reason=reason,
        full=full,
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


async def ask(address: Address, service: ServiceName, wanted: Intent) -> None:
    """The wish is written down. Raises Degraded when no engine is there to take it up."""
    quiet_logs()
    async with Registry(address) as registry:
        reports = await registry.entries(keys.ENGINE_REPORTS)
        engines = [msgspec.json.decode(pair.data, type=EngineReport) for pair in reports]
        if not engines:
            raise Degraded(
                "no rollout engine reports, so nobody would do it; nothing was asked for",
                remedy="start one with `milkrun rollouts` (`milkrun up` does), and see `milkrun logs rollouts`",
            )
        await registry.put(f"{keys.rollout_intents(service)}{wanted.id}", msgspec.json.encode(wanted))
