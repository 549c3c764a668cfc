"""`milkrun doctor`: what is right and wrong with this machine and this environment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place
from milkrun.errors import Degraded, InputRefused

if TYPE_CHECKING:
    from milkrun.consul import Address
    from milkrun.up.findings import Finding


@click.command()
@click.option("--json", is_flag=True, help="One JSON object.")
@click.option("--registry", default="", help="The registry's address, when it is not the environment's own.")
@click.pass_obj
def doctor(place: Place, json: bool, registry: str) -> None:
    """Check this machine and environment: programs, files, ports, parts, clock.

    Exit status 7 if something fails; a warning alone is 0.
    """
    from milkrun.up import findings

    found = asyncio.run(findings.examine(place.folder_if_any(), _address(place, registry)))
    if json:
        terminal.data({"schema_version": 1, "findings": found})
    else:
        terminal.show(doctor_lines(found))
    if any(one.verdict == "fail" for one in found):
        raise click.exceptions.Exit(Degraded.exit_status)


def _address(place: Place, registry: str) -> Address | None:
    """The registry's address; None when it stands in a milkrun.toml that is wrong, which is a finding itself."""
    try:
        return place.address(registry)
    except InputRefused:
        if registry:
            raise
        return None


def doctor_lines(found: Sequence[Finding]) -> list[str]:
    """A line for each finding, and what to do under each that is not ok."""
    width = max((len(one.subject) for one in found), default=0)
    lines = []
    for one in found:
        lines.append(f"  {one.verdict:4}  {one.subject.ljust(width)}  {one.text}")
        if one.remedy:
            lines.append(f"        {' ' * width}  next: {one.remedy}")
    return lines
