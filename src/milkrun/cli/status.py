"""`milkrun status`: one view of the whole environment."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place
from milkrun.errors import Degraded, NotFound, RegistryUnreachable
from milkrun.settings.text import nearest, typed

if TYPE_CHECKING:
    from milkrun.consul import Address
    from milkrun.overview.view import View

LOOK_AGAIN_S = 0.5


@click.command()
@click.argument("service", required=False)
@click.option("-w", "--watch", is_flag=True, help="Go on showing what changes, until Ctrl-C.")
@click.option("--json", is_flag=True, help="One JSON object (with --watch: one a line).")
@click.option("--registry", default="", help="The registry's address, when it is not the environment's own.")
@click.pass_obj
def status(place: Place, service: str | None, watch: bool, json: bool, registry: str) -> None:
    """Services, versions, instances, routers, sync: one view.

    Exit status 0 when all is well, 7 when something needs a person, 6 when the registry does not answer.
    """
    address = place.address(registry)
    if watch:
        _watch(address, service, json=json)
        return
    try:
        view = asyncio.run(look(address, service))
    except RegistryUnreachable as error:
        raise _with_hint(error, place, address) from error
    if json:
        terminal.data(view)
    else:
        from milkrun.cli.view_text import status_lines

        terminal.show(status_lines(view, closely=service is not None))
    if view.problems:
        raise click.exceptions.Exit(Degraded.exit_status)


async def look(address: Address, service: str | None = None) -> View:
    """The view of this moment. Raises NotFound for a service that nobody knows."""
    from milkrun.consul import Registry
    from milkrun.overview.reading import read
    from milkrun.overview.view import view

    async with Registry(address) as registry:
        facts = await read(registry)
    shown = view(facts, registry=address.url, now=time.time())
    if service is None:
        return shown
    known = [one.service for one in shown.services]
    found = [name for name in known if name == service]
    if not found:
        near = nearest(service, known)
        raise NotFound(
            f"there is no service {service!r}; there are: {', '.join(known) or 'none'}",
            remedy=f"did you mean {near}?" if near else "`milkrun status` shows all of them",
        )
    return view(facts, registry=address.url, now=time.time(), only=found[0])


def _with_hint(error: RegistryUnreachable, place: Place, address: Address) -> RegistryUnreachable:
    """The error, with what this machine itself knows of the environment's `up`."""
    folder = place.folder_if_any()
    if folder is None or address != place.address():
        return error
    from milkrun.up.record import load

    record = load(folder)
    if record is None or not record.up.alive():
        return RegistryUnreachable(
            f"{error.message}: `milkrun up` does not run in {folder.path}",
            remedy=f"milkrun up {typed(folder.path)}",
        )
    return RegistryUnreachable(
        f"{error.message}, though `milkrun up` runs here (pid {record.up.pid})",
        remedy="milkrun logs registry shows why",
    )


def _watch(address: Address, service: str | None, *, json: bool) -> None:
    import msgspec

    from milkrun.cli.view_text import status_lines

    if terminal.can_be_redrawn() and not json:
        _watch_live(address, service)
        return
    last: View | str | None = None
    while True:
        seen: View | str
        try:
            seen = asyncio.run(look(address, service))
        except RegistryUnreachable as error:
            seen = error.message
        if seen != last and isinstance(seen, str):
            terminal.say(f"milkrun: {seen}")
        elif seen != last and not isinstance(seen, str):
            if json:
                click.echo(msgspec.json.encode(seen))
            else:
                terminal.show([*status_lines(seen, closely=service is not None), ""])
        last = seen
        time.sleep(LOOK_AGAIN_S)


def _watch_live(address: Address, service: str | None) -> None:
    from rich.console import Group
    from rich.live import Live

    from milkrun.cli.view_text import watch_lines

    with Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                view = asyncio.run(look(address, service))
                size = live.console.size
                lines = watch_lines(view, size.width, size.height, closely=service is not None)
            except RegistryUnreachable as error:
                lines = [error.message, f"next: {error.remedy}"]
            live.update(Group(*(terminal.coloured(line) for line in lines)), refresh=True)
            time.sleep(LOOK_AGAIN_S)
