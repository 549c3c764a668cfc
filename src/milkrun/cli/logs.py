"""`milkrun logs`: what instances and parts wrote, one line after the other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place
from milkrun.cli.tail import Tail
from milkrun.errors import MilkrunError, NotFound
from milkrun.settings.text import typed

if TYPE_CHECKING:
    from milkrun.consul import Address
    from milkrun.model import AgentReport
    from milkrun.settings.folder import Folder

LOOK_S = 0.1
NEW_ONES_S = 1.0
PARTS = ("registry", "gitsync", "agent", "up")


@click.command()
@click.argument("name", metavar="SERVICE|INSTANCE|PART")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(min=0), help="Of each log.")
@click.option("--registry", default="", help="The registry's address, when it is not the environment's own.")
@click.pass_obj
def logs(place: Place, *, name: str, follow: bool, lines: int, registry: str) -> None:
    """Show the log of an instance, of a service's instances, or of a part (registry, agent, lb-goat ...)."""
    folder = place.folder()
    address = place.address(registry)
    environment = place.environment()
    parts = (*PARTS, *sorted(environment.routers if environment else ()))
    paths = _found(folder, address, name, parts)
    tails = {label: Tail(path, lines) for label, path in paths.items()}
    for label, tail in tails.items():
        _print(label, tail, several=len(tails) > 1)
    if lines and not follow and not any(path.stat().st_size for path in paths.values()):
        terminal.say(f"{name} has written nothing yet")
    looked = time.monotonic()
    several = len(tails) > 1
    while follow:
        time.sleep(LOOK_S)
        if name not in paths and time.monotonic() - looked > NEW_ONES_S:
            looked = time.monotonic()
            with contextlib.suppress(MilkrunError):
                for label, path in _found(folder, address, name, parts).items():
                    tails.setdefault(label, Tail(path, lines))
            several = several or len(tails) > 1
        for label, tail in tails.items():
            _print(label, tail, several=several)


def _print(label: str, tail: Tail, *, several: bool) -> None:
    for line in tail.lines():
        click.echo(f"{label}  {line}" if several else line)


def _found(folder: Folder, address: Address, name: str, known_parts: Iterable[str]) -> dict[str, Path]:
    """The log files that `name` means, by instance or part. Raises NotFound with the known names."""
    parts = {part: folder.logs / f"{part}.log" for part in known_parts}
    if name in parts and parts[name].exists():
        return {name: parts[name]}
    instances = _instances(folder, address)
    mine = {one: path for one, (service, path) in instances.items() if name in (one, service)}
    here = {one: path for one, path in sorted(mine.items()) if path.exists()}
    if here:
        return here
    if mine:
        raise NotFound(
            f"the log of {name} is not on this machine: {next(iter(mine.values()))}",
            remedy="run the same command on the host that `milkrun status` shows for it",
        )
    services = sorted({service for service, _ in instances.values()})
    there = [part for part, path in parts.items() if path.exists()]
    if not services and not there:
        raise NotFound(
            "nothing has run here yet, so there are no logs", remedy=f"milkrun up {typed(folder.path)}"
        )
    raise NotFound(
        f"there is no log of {name!r}; there are: {', '.join([*services, *instances, *there]) or 'none'}",
        remedy="milkrun status",
    )


def _instances(folder: Folder, address: Address) -> dict[str, tuple[str, Path]]:
    """Each instance's service and log: as the agents report them, and what lies in this machine's folder."""
    found: dict[str, tuple[str, Path]] = {}
    services = sorted((path.stem for path in (folder.path / "services").glob("*.toml")), key=len)
    for path in sorted((folder.agent / "logs").glob("*.log")):
        owners = [service for service in services if path.stem.startswith(f"{service}-")]
        found[path.stem] = (owners[-1] if owners else "", path)
    reported = asyncio.run(_reported(address))
    running = {unit.service for agent in reported for unit in agent.units}
    # Of a service that runs, only what runs now: logs of instances that ended long ago stay in the folder.
    found = {one: entry for one, entry in found.items() if entry[0] not in running}
    return found | {
        unit.instance: (unit.service, Path(unit.log))
        for agent in reported
        for unit in agent.units
        if unit.log
    }


async def _reported(address: Address) -> list[AgentReport]:
    """What the agents report; nothing when the registry is away."""
    import msgspec

    from milkrun.consul import Registry, keys
    from milkrun.model import AgentReport

    found: list[AgentReport] = []
    with contextlib.suppress(MilkrunError, msgspec.DecodeError):
        async with Registry(address) as registry:
            for pair in await registry.entries(keys.AGENT_REPORTS):
                found.append(msgspec.json.decode(pair.data, type=AgentReport))  # noqa: PERF401 (keeps the good)
    return found
