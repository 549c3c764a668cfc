"""`milkrun registry snapshot save|restore FILE`"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place
from milkrun.errors import InputRefused
from milkrun.host import files

WAIT_S = 120.0
_registry = click.option("--registry", default="", help="The registry's address.")
_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.group()
def snapshot() -> None:
    """Save the registry's whole state to a file, or restore it."""


@snapshot.command()
@_file
@_registry
@click.pass_obj
def save(place: Place, file: Path, registry: str) -> None:
    """Write the registry's state to FILE."""
    from milkrun.consul import Registry

    async def take() -> bytes:
        async with Registry(place.address(registry)) as door:
            return (await door.ask("GET", "/v1/snapshot", wait_s=WAIT_S)).body

    _write(file, asyncio.run(take()))
    terminal.say(f"{file}: {file.stat().st_size} bytes, all that the registry held. Keep it like a password.")


@snapshot.command()
@_file
@_registry
@click.pass_obj
def restore(place: Place, file: Path, registry: str) -> None:
    """Make the registry's state that of FILE."""
    from milkrun.consul import Registry

    try:
        body = file.read_bytes()
    except OSError as error:
        raise InputRefused(f"it cannot be read: {error.strerror}", file=str(file)) from error

    async def put() -> str:
        async with Registry(place.address(registry)) as door:
            answer = await door.ask("PUT", "/v1/snapshot", body=body, wait_s=WAIT_S, accept=(200, 400, 413))
            return "" if answer.status == 200 else answer.body.decode(errors="replace")

    if why := asyncio.run(put()):
        raise InputRefused(why, file=str(file), remedy="name a file that `snapshot save` wrote")
    terminal.say(f"the registry's state is that of {file}")


def _write(file: Path, body: bytes) -> None:
    """The file is whole on the disk, readable for its owner only, or as it was before."""
    try:
        files.replace(file, body)
    except OSError as error:
        raise InputRefused(f"it cannot be written: {error.strerror}", file=str(file)) from error
