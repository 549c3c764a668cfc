"""`milkrun explain`: why an instance does, or does not, get traffic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place

if TYPE_CHECKING:
    from milkrun.consul import Address
    from milkrun.overview.explain import Explanation


@click.command()
@click.argument("name", metavar="SERVICE|INSTANCE")
@click.option("--json", is_flag=True, help="One JSON object.")
@click.option("--registry", default="", help="The registry's address, when it is not the environment's own.")
@click.pass_obj
def explain(place: Place, name: str, json: bool, registry: str) -> None:
    """Why an instance does, or does not, get traffic: from git to each router."""
    found = asyncio.run(_explain(place.address(registry), name))
    if json:
        terminal.data(found)
    else:
        terminal.show(explain_lines(found))


async def _explain(address: Address, name: str) -> Explanation:
    from milkrun.consul import Registry
    from milkrun.overview import explain as overview
    from milkrun.overview.reading import read

    async with Registry(address) as registry:
        return overview.explain(await read(registry), name)


def explain_lines(found: Explanation) -> list[str]:
    """The explanation as text: a block an instance, then what concerns them all."""
    lines: list[str] = []
    for one in found.instances:
        width = max(len(link.source) for link in one.chain)
        lines += [
            f"{one.instance} (version {one.version})",
            *(f"  {link.source.ljust(width)}  {link.fact}" for link in one.chain),
            f"  => {one.verdict}",
            "",
        ]
    if not found.instances:
        lines += [f"{found.service} has no instance, running or starting", ""]
    return [*lines, *found.notes] if found.notes else lines[:-1]
