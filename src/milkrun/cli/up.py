"""`milkrun up` and `milkrun down`: the whole environment on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place

if TYPE_CHECKING:
    from milkrun.overview.facts import Facts
    from milkrun.settings.folder import Folder

LOOK_S = 0.1
_directory = click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path)
)


@click.command()
@_directory
@click.option("--detach", is_flag=True, help="Return when all is up, and leave it running.")
@click.option("--background", is_flag=True, hidden=True, help="The other side of --detach.")
@click.pass_obj
def up(place: Place, directory: Path | None, detach: bool, background: bool) -> None:
    """Run the whole environment on this machine. Ctrl-C drains and stops all of it."""
    folder = (Place(directory) if directory else place).folder()
    if detach:
        _detached(folder)
        return
    from milkrun.up.run import run

    def when_up(facts: Facts) -> None:
        if not background:
            terminal.show(_summary(folder, facts))
            sys.stdout.flush()
            terminal.say("Ctrl-C drains and stops everything.")

    asyncio.run(run(folder, terminal.say, when_up))


@click.command()
@_directory
@click.pass_obj
def down(place: Place, directory: Path | None) -> None:
    """Drain and stop what `up` started, or what a killed one left behind."""
    folder = (Place(directory) if directory else place).folder()
    from milkrun.up.down import down as stop

    if asyncio.run(stop(folder, terminal.say)):
        terminal.say(f"nothing of {folder.path} runs here any more")
    else:
        terminal.say(f"nothing of {folder.path} runs here")


def _detached(folder: Folder) -> None:
    """`up` runs in the background and everything is up."""
    from milkrun.overview.reading import read
    from milkrun.up.record import load

    folder.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder.logs / "up.log"
    with log.open("ab") as file:
        start = file.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "milkrun", "--env", str(folder.path), "up", "--background"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    ready = False
    while not ready and child.poll() is None:
        time.sleep(LOOK_S)
        start = _relayed(log, start)
        record = load(folder)
        ready = record is not None and record.up.pid == child.pid and record.ready
    _relayed(log, start)
    if not ready:
        raise click.exceptions.Exit(child.returncode or 1)
    from milkrun.consul import Registry
    from milkrun.up.run import address

    async def facts() -> Facts:
        async with Registry(address(folder, folder.load_environment())) as registry:
            return await read(registry)

    terminal.show(_summary(folder, asyncio.run(facts())))
    terminal.say(f"runs in the background (pid {child.pid}); `{_command(folder)} down` stops it")


def _relayed(log: Path, start: int) -> int:
    """What the log got since `start` is on stderr; returns where it ends now."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
        if text:
            click.echo(text, err=True, nl=False)
        return file.tell()


def _summary(folder: Folder, facts: Facts) -> list[str]:
    from milkrun.up.run import services
    from milkrun.up.summary import summary

    return summary(folder.load_environment(), services(folder), facts.wishes, command=_command(folder))


def _command(folder: Folder) -> str:
    """How to call this very milkrun for this environment from the current folder."""
    from milkrun.up.run import command_from

    own = Path(sys.executable).parent / "milkrun"
    found = shutil.which("milkrun")
    if found and Path(found).resolve() == own.resolve():
        program = "milkrun"
    elif own.exists():
        program = os.path.relpath(own)
        program = program if len(program) < len(str(own)) else str(own)
    else:
        program = f"{sys.executable} -m milkrun"
    return command_from(program, folder, Path.cwd())
