"""`milkrun agent | router | gitsync | rollouts`: each part as a daemon of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from milkrun.cli.place import Place
from milkrun.errors import NotFound, UsageError

if TYPE_CHECKING:
    from milkrun.router.envoy.outside import Outside

_registry = click.option("--registry", default="", help="The registry's address.")
_state = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it keeps what it must remember (default: in the environment's folder).",
)
PLAN = "plan"
"""No router can have this name."""
_host = click.option("--host", default="", help="This machine's name (default: what the system says).")


@click.command()
@_registry
@_state
@_host
@click.pass_obj
def agent(place: Place, registry: str, state: Path | None, host: str) -> None:
    """Run the agent of this host: it starts, probes, registers and stops instances."""
    from milkrun.agent.daemon import run
    from milkrun.cli import daemon

    state_dir = place.state_dir(state, "agent")
    folder = place.folder_if_any()
    address = place.address(registry)
    where = folder.path if folder else Path.cwd()
    name = host or daemon.this_host()
    daemon.run(
        "agent",
        state_dir,
        lambda handover: run(address, host=name, state_dir=state_dir, folder=where, handover=handover),
    )


def _others(ads: str, cert: str, key: str, ca: str) -> Outside | None:
    """Where other Envoys may ask the router; None for nowhere."""
    from milkrun.router.envoy import outside

    if ads:
        return outside.outside(ads, cert, key, ca)
    if cert or key or ca:
        raise UsageError("there is no address to show a certificate at", remedy="add --ads HOST:PORT")
    return None


def _refuse_unknown(place: Place, name: str, more: str) -> None:
    """Raises NotFound for a router that milkrun.toml, where there is one, does not have; UsageError for `more`."""
    if more:
        raise UsageError(
            f"a router is run by its name alone, without {more!r}", remedy=f"milkrun router {name}"
        )
    environment = place.environment()
    if environment and name not in environment.routers:
        raise NotFound(
            f"milkrun.toml has no router {name!r}; it has: {', '.join(sorted(environment.routers)) or 'none'}",
            remedy=f"add [routers.{name}] to {place.folder().settings_file}, or name one that is there",
        )


@click.command()
@click.argument("name")
@click.argument("which", required=False, default="")
@_registry
@_state
@_host
@click.option("--json", is_flag=True, help="One JSON object (plan only).")
@click.option(
    "--accept-older", is_flag=True, help="Once: follow git even if it went back to an older generation."
)
@click.option("--ads", default="", metavar="HOST:PORT", help="Where other Envoys may ask (with Envoy only).")
@click.option("--ads-cert", default="", metavar="FILE", help="The certificate shown there.")
@click.option("--ads-key", default="", metavar="FILE", help="Its key.")
@click.option("--ads-ca", default="", metavar="FILE", help="Who signs the certificates of those who ask.")
@click.pass_obj
def router(
    place: Place,
    *,
    name: str,
    which: str,
    registry: str,
    state: Path | None,
    host: str,
    json: bool,
    accept_older: bool,
    ads: str,
    ads_cert: str,
    ads_key: str,
    ads_ca: str,
) -> None:
    """Run the router NAME of milkrun.toml with its own HAProxy.

    `milkrun router plan [ROUTER]` shows what the files as they are would change at the routers that run, and
    whether that takes a reload.
    """
    if name == PLAN:
        from milkrun.cli import router_plan

        router_plan.show(place, which, registry, json=json)
        return
    from milkrun.cli import daemon
    from milkrun.router.daemon import run
    from milkrun.router.envoy import files, outside

    _refuse_unknown(place, name, which)
    others = _others(ads, ads_cert, ads_key, ads_ca)
    state_dir = place.state_dir(state, f"routers/{name}")
    address = place.address(registry)
    folder = place.folder_if_any()
    where = folder.path if folder else Path.cwd()
    key = folder.state / "override.key" if folder else None

    async def body(handover: asyncio.Event) -> None:
        outside.keep(state_dir, others)
        files.keep(state_dir, key)
        await run(
            address,
            name=name,
            host=host or daemon.this_host(),
            state_dir=state_dir,
            handover=handover,
            accept_older=accept_older,
            folder=where,
            override_file=key,
        )

    daemon.run(name, state_dir, body)


@click.command()
@click.option(
    "--repository", "--repo", "repo", default="", metavar="PATH|URL", help="Where the environment's git is."
)
@click.option(
    "--branch", default="", help="The branch that is the wish (default: milkrun.toml's, else main)."
)
@click.option("--poll", default=5.0, type=click.FloatRange(min=0.1), help="Seconds between fetches of a URL.")
@_registry
@_state
@_host
@click.pass_obj
def gitsync(
    place: Place, *, repo: str, branch: str, poll: float, registry: str, state: Path | None, host: str
) -> None:
    """Carry each commit of the environment's repository into the registry."""
    from milkrun.cli import daemon
    from milkrun.gitsync.daemon import run

    folder = place.folder_if_any()
    if not repo and not folder:
        raise UsageError("there is no repository to follow", remedy="name it with --repo PATH or --repo URL")
    state_dir = place.state_dir(state, "gitsync")
    address = place.address(registry)
    environment = place.environment() if not branch else None
    branch = branch or (environment.git.branch if environment else "main")
    source: Path | str = folder.path if folder and not repo else repo
    if isinstance(source, str) and Path(source).exists():
        source = Path(source).absolute()
    name = host or daemon.this_host()

    async def body(handover: asyncio.Event) -> None:
        sync = run(address, repository=source, branch=branch, state_dir=state_dir, host=name, poll_s=poll)
        await daemon.ends_at_handover(handover, sync)

    daemon.run("gitsync", state_dir, body)


@click.command()
@click.option(
    "--repository", "--repo", "repo", default="", metavar="PATH", help="Where the environment's git is."
)
@click.option("--branch", default="", help="The branch to commit to (default: milkrun.toml's, else main).")
@click.option(
    "--push", default="", metavar="URL", help="Where commits are pushed to (default: milkrun.toml's)."
)
@_registry
@_state
@_host
@click.pass_obj
def rollouts(
    place: Place, *, repo: str, branch: str, push: str, registry: str, state: Path | None, host: str
) -> None:
    """Run the rollout engine: it carries out what `deploy` and `rollout` ask for. Several may run; one acts."""
    from milkrun.cli import daemon
    from milkrun.rollout.daemon import run

    folder = place.folder_if_any()
    if not repo and not folder:
        raise UsageError("there is no repository to commit to", remedy="name it with --repo PATH")
    state_dir = place.state_dir(state, "rollouts")
    address = place.address(registry)
    environment = place.environment()
    git = environment.git if environment else None
    source = folder.path if folder and not repo else Path(repo).absolute()

    async def body(handover: asyncio.Event) -> None:
        engine = run(
            address,
            repository=source,
            branch=branch or (git.branch if git else "main"),
            push=push or (git.push if git else ""),
            state_dir=state_dir,
            host=host or daemon.this_host(),
        )
        await daemon.ends_at_handover(handover, engine)

    daemon.run("rollouts", state_dir, body)
