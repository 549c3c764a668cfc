"""`milkrun deploy`: a new version takes over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place

if TYPE_CHECKING:
    from milkrun.rollout.plan import Kind

STRATEGIES = ["rolling", "blue-green", "canary"]


@click.command()
@click.argument("service")
@click.argument("version")
@click.option(
    "--strategy", type=click.Choice(STRATEGIES), help="In place of the one in the service's settings."
)
@click.option(
    "--replicas", type=click.IntRange(1, 1000), help="New instances (default: as many as serve now)."
)
@click.option("--digest", default="", help="Only if the plan is still the one with this digest.")
@click.option("--reason", default="", help="Why, for the journal.")
@click.option("--wait/--no-wait", default=True, help="Follow it to its end (default).")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Follow it no longer than this.")
@click.option("--json", is_flag=True, help="The receipt as one JSON object.")
@click.option("--registry", default="", help="The registry's address, when it is not the environment's own.")
@click.pass_obj
def deploy(
    place: Place,
    *,
    service: str,
    version: str,
    strategy: Kind | None,
    replicas: int | None,
    digest: str,
    reason: str,
    wait: bool,
    timeout: float | None,
    json: bool,
    registry: str,
) -> None:
    """Roll VERSION of SERVICE out: start it, test it, shift traffic step by step, compare, or take it back.

    Exit status: 0 done; 7 taken back, held, or a person is needed; 4 refused; 5 --timeout is over (it goes on).
    """
    from milkrun.cli.rollout_ask import ask, begin, planned
    from milkrun.cli.rollout_text import receipt_lines
    from milkrun.cli.rollout_wait import Follower, ahead_of, behind

    plan = asyncio.run(planned(place, service, version, strategy=strategy, replicas=replicas, digest=digest))
    address = place.address(registry)
    intent = begin(plan, strategy=strategy, replicas=replicas, digest=digest, reason=reason)
    asyncio.run(ask(address, plan.service, intent))
    terminal.say(f"rollout {plan.id}: {plan.strategy}, {len(plan.steps)} steps; Ctrl-C leaves it running")
    if not wait:
        ahead = asyncio.run(ahead_of(address, plan.service, plan.id))
        if ahead:
            terminal.say(behind(plan.service, plan.id, ahead))
        if json:
            told = {"rollout": plan.id, "service": plan.service, "digest": plan.digest, "behind": ahead}
            terminal.data({"schema_version": 1, **told})
        return
    receipt = asyncio.run(Follower(address, plan.service, plan.id, json=json).until_end(timeout))
    if json:
        terminal.data({"schema_version": 1, "receipt": receipt})
    else:
        terminal.show(receipt_lines(receipt))
