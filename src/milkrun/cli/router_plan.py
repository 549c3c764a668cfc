"""`milkrun router plan`: what the files as they are would change at the routers that run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from milkrun.cli import terminal
from milkrun.cli.table import table
from milkrun.errors import NotFound

if TYPE_CHECKING:
    from milkrun.cli.place import Place
    from milkrun.consul import Address
    from milkrun.router.plan import Files, Step
    from milkrun.settings.folder import Folder


def show(place: Place, which: str, registry: str, *, json: bool) -> None:
    """The steps are shown: those of one router, or of all."""
    from milkrun.router.plan import steps

    before = asyncio.run(_published(place.address(registry)))
    after = _here(place.folder())
    if which and which not in {*before.environment.routers, *after.environment.routers}:
        raise NotFound(
            f"there is no router {which!r}",
            remedy=f"there are: {', '.join(sorted(after.environment.routers)) or 'none'}",
        )
    found = [step for step in steps(before, after) if which in ("", step.router)]
    if json:
        terminal.data({"schema_version": 1, "steps": found})
    elif found:
        terminal.show(_lines(found))
    else:
        terminal.say("the files here change nothing at the routers")


def _lines(found: list[Step]) -> list[str]:
    reloads = sorted({step.router for step in found if step.how == "reload"})
    lines = table(
        ["ROUTER", "HOW", "WHAT"], [[step.router, step.how, step.what] for step in found], indent=""
    )
    last = f"one hitless reload each of {', '.join(reloads)}" if reloads else "no reload"
    return [*lines, f"after the commit: {last}"]


def _here(folder: Folder) -> Files:
    """The files of the folder, committed or not. Raises InputRefused for one that would be refused."""
    from milkrun.router.plan import Files
    from milkrun.settings import deploy, service

    services, wishes = {}, {}
    for path in sorted((folder.path / "services").glob("*.toml")):
        file = f"services/{path.name}"
        services[service.name_of(file)] = service.load(path.read_bytes(), file)
    for path in sorted((folder.path / "deploy").glob("*.json")):
        file = f"deploy/{path.name}"
        wishes[service.name_of(file)] = deploy.parse(path.read_bytes(), file)
    return Files(environment=folder.load_environment(), services=services, wishes=wishes)


async def _published(address: Address) -> Files:
    """What gitsync published last. Raises NotFound when it never did."""
    from milkrun.consul import Registry
    from milkrun.overview.reading import read
    from milkrun.router.plan import Files

    async with Registry(address) as registry:
        facts = await read(registry)
    if facts.environment is None:
        raise NotFound(
            "nothing is published yet: there is nothing to compare with", remedy="start it with `milkrun up`"
        )
    return Files(
        environment=facts.environment.settings,
        services={name: each.settings for name, each in facts.settings.items()},
        wishes=dict(facts.wishes),
    )
