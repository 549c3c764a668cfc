"""`milkrun override`: a cookie by which a tester gets a version, whatever its share."""

from __future__ import annotations

import time
from pathlib import Path

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place

HOURS_AT_MOST = 24 * 31


@click.command()
@click.argument("service")
@click.argument("version")
@click.option(
    "--hours",
    default=8.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True, max=HOURS_AT_MOST),
    metavar="N",
    help="How long it is good for.",
)
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The key that the routers have (default: in the environment's folder).",
)
@click.option("--json", is_flag=True, help="One JSON object.")
@click.pass_obj
def override(place: Place, *, service: str, version: str, hours: float, key: Path | None, json: bool) -> None:
    """Print a cookie by which one tester gets VERSION of SERVICE, whatever its share.

    The service needs `traffic.override = "cookie"`. For example: curl -b "$(milkrun override goat 0.0.2)" ...
    """
    from milkrun.model import service_name, version_name
    from milkrun.router.override import cookie_name, cookie_value
    from milkrun.router.override_key import NAME, key_at

    name = service_name(service)
    until = int(time.time() + hours * 3600)
    value = cookie_value(name, version_name(version), until, key_at(key or place.folder().state / NAME))
    _say_when_it_is_off(place, service)
    if json:
        terminal.data({"schema_version": 1, "name": cookie_name(name), "value": value, "until": until})
    else:
        terminal.show([f"{cookie_name(name)}={value}"])


def _say_when_it_is_off(place: Place, service: str) -> None:
    """A person who asks for a cookie that no router heeds is told so; the file that counts is the committed one."""
    from milkrun.settings import service as settings

    folder = place.folder_if_any()
    file = folder.path / "services" / f"{service}.toml" if folder else None
    if file is None or not file.is_file():
        return
    if settings.load(file.read_bytes(), str(file)).traffic.override != "cookie":
        terminal.say(f'milkrun: no router heeds it until {file.name} has `override = "cookie"` in [traffic]')
