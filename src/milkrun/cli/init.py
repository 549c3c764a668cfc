"""`milkrun init`: a new environment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from milkrun.cli import terminal
from milkrun.settings.text import typed


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--template", default="blank", show_default=True, help="What to start from: dairy or blank.")
def init(directory: Path, template: str) -> None:
    """Make an environment in DIR: a git repository with milkrun.toml, services/ and deploy/."""
    from milkrun import repository, templates

    repository.require_git()  # before anything is written: a half-made environment would be in the way
    templates.create(directory, template)
    asyncio.run(repository.create(directory, "main", f"Start from the {template} template"))
    terminal.say(f"{directory} is an environment now, a git repository of its own")
    terminal.say(f"  next: milkrun up {typed(directory)}")
