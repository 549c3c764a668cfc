"""`milkrun rollout`: look at a rollout, and say what it is to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.deploy import STRATEGIES
from milkrun.cli.place import Place
from milkrun.errors import Degraded, NotFound, UsageError

if TYPE_CHECKING:
    from milkrun.model import ServiceName
    from milkrun.rollout.plan import Kind
    from milkrun.rollout.receipt import Receipt
    from milkrun.rollout.state import Verb
    from milkrun.rollout.view import RolloutView

_registry = click.option(
    "--registry", default="", help="The registry's address, when it is not the environment's own."
)
_json = click.option("--json", is_flag=True, help="One JSON object.")
_reason = click.option("--reason", default="", help="Why, for the journal.")


@click.group()
def rollout() -> None:
    """Plans, watches and steers rollouts."""


@rollout.command()
@click.argument("service")
@click.argument("version")
@click.option(
    "--strategy", type=click.Choice(STRATEGIES), help="In place of the one in the service's settings."
)
@click.option(
    "--replicas", type=click.IntRange(1, 1000), help="New instances (default: as many as serve now)."
)
@_json
@click.pass_obj
def plan(
    place: Place, *, service: str, version: str, strategy: Kind | None, replicas: int | None, json: bool
) -> None:
    """Show the steps of a deploy with their git changes.

    Nothing is done.
    """
    from milkrun.cli.rollout_ask import planned
    from milkrun.cli.rollout_text import plan_lines

    drawn = asyncio.run(planned(place, service, version, strategy=strategy, replicas=replicas))
    if json:
        terminal.data({"schema_version": 1, "plan": drawn})
    else:
        terminal.show(plan_lines(drawn))


@rollout.command()
@click.argument("service")
@_json
@_registry
@click.pass_obj
def status(place: Place, service: str, json: bool, registry: str) -> None:
    """Show how the service's newest rollout stands.

    Exit status 0 while it runs or when it is done, 7 when it was taken back, is held, or a person is needed.
    """
    from milkrun.cli.rollout_text import tree_lines

    seen = _seen(place, service, registry)
    if json:
        terminal.data(seen)
    else:
        terminal.show(tree_lines(seen))
    if seen.paused or seen.phase.value in ("taken-back", "needs-person"):
        raise click.exceptions.Exit(Degraded.exit_status)


@rollout.command()
@click.argument("service")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="No longer than this.")
@_json
@_registry
@click.pass_obj
def watch(place: Place, service: str, timeout: float | None, json: bool, registry: str) -> None:
    """Follow the newest rollout to its end.

    The exit status is that of `deploy`.
    """
    from milkrun.cli.rollout_text import receipt_lines
    from milkrun.cli.rollout_wait import Follower

    seen = _seen(place, service, registry)
    follower = Follower(place.address(registry), _name(service), seen.rollout, json=json)
    receipt = asyncio.run(follower.until_end(timeout))
    if json:
        terminal.data({"schema_version": 1, "receipt": receipt})
    else:
        terminal.show(receipt_lines(receipt))


@rollout.command()
@click.argument("service")
@_json
@_registry
@click.pass_obj
def why(place: Place, service: str, json: bool, registry: str) -> None:
    """Show the newest rollout's verdicts with their numbers."""
    from milkrun.cli.rollout_text import why_lines

    seen = _seen(place, service, registry)
    if json:
        terminal.data(
            {"schema_version": 1, "rollout": seen.rollout, "verdicts": seen.verdicts, "reason": seen.reason}
        )
    else:
        terminal.show(why_lines(seen))


@rollout.command()
@click.argument("service")
@click.option("--journal", is_flag=True, help="Every line of the newest one's journal instead.")
@_json
@_registry
@click.pass_obj
def history(place: Place, service: str, journal: bool, json: bool, registry: str) -> None:
    """Show the receipts of the service's last rollouts."""
    from milkrun.cli.rollout_text import history_lines
    from milkrun.cli.rollout_wait import state_of
    from milkrun.rollout.view import journal_lines

    shelf, seen = asyncio.run(state_of(place.address(registry), _name(service)))
    if journal:
        if json:
            terminal.data({"schema_version": 1, "rollout": seen.rollout, "journal": shelf.journal})
        else:
            terminal.show(journal_lines(shelf.journal, seen.started))
    elif json:
        terminal.data({"schema_version": 1, "service": service, "history": shelf.history})
    else:
        terminal.show(history_lines(_name(service), shelf.history))


# Verbs: each is written down for the engine


def _verb(verb: Verb, about: str) -> Callable[..., None]:
    @click.argument("service")
    @_reason
    @_registry
    @click.pass_obj
    def command(place: Place, service: str, reason: str, registry: str) -> None:
        _say(place, service, verb, registry, reason=reason)

    command.__doc__ = about
    return command


rollout.command("pause")(_verb("pause", "Hold it where it is; guards go on watching."))
rollout.command("resume")(
    _verb(
        "resume",
        "Go on, also past an edit of somebody else's.\n\nThe rollout's own step is put back over the edit.",
    )
)
rollout.command("approve")(_verb("approve", "Let the step `approve` pass."))
rollout.command("reject")(_verb("reject", "Refuse the step `approve`: the rollout is taken back."))
rollout.command("retry")(_verb("retry", "Try again what it is stuck at."))


@rollout.command()
@click.argument("service")
@click.option("--full", is_flag=True, help="Skip all other steps: all traffic to the new version.")
@_reason
@_registry
@click.pass_obj
def promote(place: Place, service: str, full: bool, reason: str, registry: str) -> None:
    """Skip the present wait, or (--full) every step up to all traffic."""
    _say(place, service, "promote", registry, reason=reason, full=full)


@rollout.command()
@click.argument("service")
@click.option("--force", is_flag=True, help="Leave everything as it stands and close the rollout.")
@click.option(
    "--queued", default="", metavar="VERSION", help="Call off the one of VERSION that waits for its turn."
)
@_reason
@_registry
@click.pass_obj
def abort(place: Place, *, service: str, force: bool, queued: str, reason: str, registry: str) -> None:
    """Take it back, or call off one that waits.

    It is taken back from wherever it stands. When none is under way, the next one that waits is called off.
    """
    if force and queued:
        raise UsageError("--force is for the rollout under way, --queued for one behind it")
    _say(place, service, "abort", registry, reason=reason, full=force, queued=queued)


@rollout.command()
@click.argument("service")
@click.option("--to", "version", default="", help="The version to go back to (default: the one before).")
@click.option("--wait/--no-wait", default=True, help="Follow it to its end (default).")
@_reason
@_registry
@click.pass_obj
def undo(place: Place, *, service: str, version: str, wait: bool, reason: str, registry: str) -> None:
    """Go back to the version before, or to one that served.

    That is one commit while the old instances are still warm.
    """
    from milkrun.cli.rollout_ask import ask, begin, planned
    from milkrun.cli.rollout_text import receipt_lines
    from milkrun.cli.rollout_wait import Follower, state_of
    from milkrun.rollout.receipt import receipt

    address, name = place.address(registry), _name(service)
    shelf, _ = asyncio.run(state_of(address, name))
    known = list(shelf.history)
    if shelf.state and not shelf.state.over:
        if not version or [*shelf.state.plan.old] == [version]:
            _say(place, service, "abort", registry, reason=reason or "undo")
            return
        known.append(receipt(shelf.state, shelf.state.since))
    before = version or _before(shelf.history, service)
    drawn = asyncio.run(planned(place, service, before, strategy="undo", history=known))
    asyncio.run(ask(address, name, begin(drawn, strategy="undo", replicas=None, digest="", reason=reason)))
    terminal.say(f"rollout {drawn.id}: {service} goes back to {before}")
    if wait:
        terminal.show(
            receipt_lines(asyncio.run(Follower(address, name, drawn.id, json=False).until_end(None)))
        )


def _before(history: list[Receipt], service: str) -> str:
    for receipt in reversed(history):
        if receipt.outcome == "done" and receipt.old:
            if len(receipt.old) > 1:
                terminal.say(
                    f"{', '.join(receipt.old)} had the traffic: {receipt.old[0]} had the most, and gets all of it;"
                    " `git revert` brings the former shares back"
                )
            return str(receipt.old[0])
    raise NotFound(
        f"no rollout of {service} is known that could be undone",
        remedy=f"milkrun deploy {service} VERSION",
    )


def _name(service: str) -> ServiceName:
    from milkrun.model import service_name

    return service_name(service)


def _seen(place: Place, service: str, registry: str) -> RolloutView:
    from milkrun.cli.rollout_wait import state_of

    return asyncio.run(state_of(place.address(registry), _name(service)))[1]


def _say(
    place: Place,
    service: str,
    verb: Verb,
    registry: str,
    *,
    reason: str = "",
    full: bool = False,
    queued: str = "",
) -> None:
    """What the engine made of it is said. Raises Conflict when that is nothing."""
    from milkrun.cli.rollout_say import say

    address, name = place.address(registry), _name(service)
    terminal.say(asyncio.run(say(address, name, verb, reason=reason, full=full, queued=queued)))
