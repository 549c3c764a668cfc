"""`milkrun migrate`: what a version does to the service's database, how far that is, and the contract."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place
from milkrun.errors import InputRefused

if TYPE_CHECKING:
    from milkrun.model import ServiceName

_json = click.option("--json", is_flag=True, help="One JSON object.")
_registry = click.option(
    "--registry", default="", help="The registry's address, when it is not the environment's own."
)


@click.group()
def migrate() -> None:
    """Shows database migrations, and carries out their contract."""


@migrate.command()
@click.argument("service")
@click.argument("version")
@_json
@click.pass_obj
def plan(place: Place, *, service: str, version: str, json: bool) -> None:
    """Show what VERSION does to the database, statement by statement, and what is not safe in it; nothing is done.

    Exit status 8 when something is refused.
    """
    from milkrun.cli.migrate_look import planned
    from milkrun.cli.migrate_text import plan_lines

    drawn = asyncio.run(planned(place, _name(service), version))
    if json:
        terminal.data(drawn)
    else:
        terminal.show(plan_lines(drawn))
    if drawn.findings:
        raise click.exceptions.Exit(InputRefused.exit_status)


@migrate.command()
@click.argument("service")
@_json
@_registry
@click.pass_obj
def status(place: Place, service: str, json: bool, registry: str) -> None:
    """Show which phases of the service's migrations are done, and what is in the way of the contract.

    It asks the service's database, by the address that [migration] in its settings leads to.
    """
    from milkrun.cli.migrate_look import looked
    from milkrun.cli.migrate_text import status_lines

    seen = asyncio.run(looked(place, _name(service), registry))
    if json:
        terminal.data(seen)
    else:
        terminal.show(status_lines(seen))


@migrate.command()
@click.argument("service")
@click.argument("version", required=False, default="")
@click.option("--reason", default="", help="Why, for the journal.")
@click.option("--wait/--no-wait", default=True, help="Follow it to its end (default).")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Follow it no longer than this.")
@click.option("--json", is_flag=True, help="The receipt as one JSON object.")
@_registry
@click.pass_obj
def contract(
    place: Place,
    *,
    service: str,
    version: str,
    reason: str,
    wait: bool,
    timeout: float | None,
    json: bool,
    registry: str,
) -> None:
    """Take away what only versions before VERSION (default: the one that serves) used. There is no way back behind it.

    It waits until no instance and no session of theirs is left, and looks at the rows once more. Exit status: 0 done;
    7 not done, with the reason; 4 refused; 5 --timeout is over (it goes on).
    """
    from milkrun.cli.migrate_look import serving
    from milkrun.cli.rollout_ask import ask, begin, planned
    from milkrun.cli.rollout_text import receipt_lines
    from milkrun.cli.rollout_wait import Follower, state_of

    address, name = place.address(registry), _name(service)
    shelf, _ = asyncio.run(state_of(address, name))
    of = version or asyncio.run(serving(place, name))
    drawn = asyncio.run(planned(place, service, of, strategy="contract", history=shelf.history))
    asyncio.run(
        ask(address, name, begin(drawn, strategy="contract", replicas=None, digest="", reason=reason))
    )
    terminal.say(f"rollout {drawn.id}: the contract of {of}; Ctrl-C leaves it running")
    if not wait:
        if json:
            terminal.data({"schema_version": 1, "rollout": drawn.id, "service": name, "digest": drawn.digest})
        return
    receipt = asyncio.run(Follower(address, name, drawn.id, json=json).until_end(timeout))
    if json:
        terminal.data({"schema_version": 1, "receipt": receipt})
    else:
        terminal.show(receipt_lines(receipt))


def _name(service: str) -> ServiceName:
    from milkrun.model import service_name

    return service_name(service)
