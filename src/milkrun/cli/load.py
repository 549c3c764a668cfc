"""`milkrun load`: open-loop clients with a ledger."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal

if TYPE_CHECKING:
    from milkrun.load.figures import Figures

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
INTERRUPTED = 130


def _seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    """The seconds that `value` stands for: a number with ms, s, m or h, or with none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", value)
    if not found or not float(found[1]):
        raise click.BadParameter(f"{value!r} is no time such as 30s, 500ms or 2m")
    return float(found[1]) * _UNITS[found[2]]


@click.command()
@click.argument("url")
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Requests a second.",
)
@click.option("--duration", default="10s", show_default=True, callback=_seconds, help="As 30s, 500ms, 2m.")
@click.option(
    "--connections",
    default="both",
    show_default=True,
    type=click.Choice(["keep-alive", "one-shot", "both"]),
    help="How connections are used.",
)
@click.option(
    "--timeout",
    default="10s",
    show_default=True,
    callback=_seconds,
    help="A request without an answer after this has failed.",
)
@click.option("--json", is_flag=True, help="One JSON object.")
def load(*, url: str, rate: float, duration: float, connections: str, timeout: float, json: bool) -> None:
    """Send GET requests to URL on schedule and account for each: answered, failed and why, by which version.

    Exit status 1 if anything failed, 130 if it was interrupted.
    """
    import uvloop

    # Twice the rate of asyncio's own loop before the client falls behind its schedule.
    figures = uvloop.run(_run(url, rate, duration, connections, timeout))
    if sys.stderr.isatty():
        click.echo(err=True)
    if json:
        terminal.data(figures)
    else:
        from milkrun.load.report import lines

        terminal.show(lines(figures))
    if figures.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if not figures.clean:
        raise click.exceptions.Exit(1)


async def _run(url: str, rate: float, duration_s: float, connections: str, timeout_s: float) -> Figures:
    from milkrun.load.figures import Connections
    from milkrun.load.generator import run

    figures: list[Figures] = []

    async def body() -> None:
        figures.append(
            await run(
                url,
                rate=rate,
                duration_s=duration_s,
                connections=Connections(connections),
                timeout_s=timeout_s,
                on_tick=_live_line() if sys.stderr.isatty() else None,
            )
        )

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(body())
        # A first Ctrl-C ends the run: what was counted until then is still told.
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return figures[0]


def _live_line() -> Callable[[Figures], None]:
    from milkrun.load.report import live

    def tell(figures: Figures) -> None:
        click.echo(f"\r\x1b[K{live(figures)}", err=True, nl=False)

    return tell
