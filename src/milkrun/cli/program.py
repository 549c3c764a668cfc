"""The root command: which commands there are, and how each way to fail becomes an exit status."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from milkrun import __version__
from milkrun.cli import terminal
from milkrun.cli.place import Place
from milkrun.errors import MilkrunError

INTERRUPTED = 130

COMMANDS = {
    "init": ("init", "Make an environment: a git repository to put services in."),
    "up": ("up", "Run the whole environment on this machine."),
    "down": ("up", "Drain and stop what `up` started."),
    "status": ("status", "Services, versions, instances, routers: one view."),
    "weights": ("weights", "Show or change how the traffic of a service is shared."),
    "deploy": ("deploy", "Roll a new version out, step by step, or take it back."),
    "migrate": ("migrate", "Show database migrations, and carry out their contract."),
    "rollout": ("rollout", "Plan, watch and steer rollouts."),
    "override": ("override", "A cookie by which a tester gets a version."),
    "explain": ("explain", "Why an instance does, or does not, get traffic."),
    "logs": ("logs", "The logs of instances and parts."),
    "load": ("load", "Send requests on schedule and account for each one."),
    "doctor": ("doctor", "Check this machine and environment."),
    "registry": ("registry", "Run the registry."),
    "agent": ("daemons", "Run the agent of this host."),
    "router": ("daemons", "Run one load balancer."),
    "gitsync": ("daemons", "Carry commits into the registry."),
    "rollouts": ("daemons", "Carry out what `deploy` asks for."),
}
"""Each command's module, where it has the same name, and its line in the help."""


class Program(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"milkrun.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help lists every command without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--env",
    type=click.Path(file_okay=False, path_type=Path),
    help="The environment's folder (default: this one or the nearest above it that has a milkrun.toml).",
)
@click.version_option(__version__, prog_name="milkrun", message="%(prog)s %(version)s")
@click.pass_context
def program(ctx: click.Context, env: Path | None) -> None:
    """Deploys without fear for services on plain machines."""
    ctx.obj = Place(env)


def run(arguments: list[str]) -> int:
    """The exit status of the command, after its outcome is told: data on stdout, talk on stderr."""
    json = "--json" in arguments
    try:
        left_with = program.main(args=arguments, prog_name="milkrun", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except MilkrunError as error:
        return terminal.failed(error, json=json)
    except BaseExceptionGroup as group:
        return _failed_together(group, json=json)
    # A command that raised Exit comes back here with its status; any other returns nothing.
    return left_with if isinstance(left_with, int) else 0


def _failed_together(group: BaseExceptionGroup[BaseException], *, json: bool) -> int:
    """Tasks fail as a group: the first error that a person can act on speaks for them."""
    ours, others = group.split(MilkrunError)
    while ours is not None:
        first = ours.exceptions[0]
        if isinstance(first, MilkrunError):
            return terminal.failed(first, json=json)
        ours = first if isinstance(first, BaseExceptionGroup) else None
    if others is not None and others.split(KeyboardInterrupt)[1] is None:
        return INTERRUPTED
    raise group
