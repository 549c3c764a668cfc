"""`milkrun registry | agent | router | gitsync`: each part as a daemon of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from milkrun.cli.place import Place
from milkrun.cli.snapshot import snapshot
from milkrun.errors import NotFound, UsageError

if TYPE_CHECKING:
    from milkrun.registry.http.tls import TlsFiles

_registry = click.option("--registry", default="", help="The registry's address.")
_state = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it keeps what it must remember (default: in the environment's folder).",
)
_file = click.Path(dir_okay=False, path_type=Path)
_host = click.option("--host", default="", help="This machine's name (default: what the system says).")


def _state_dir(place: Place, given: Path | None, name: str) -> Path:
    """Where the part keeps its state: `given`, or its place in the environment."""
    if given:
        return given.absolute()
    if folder := place.folder_if_any():
        return folder.state / name
    raise UsageError(
        "this is no environment, so there is no place to keep state in",
        remedy="name one with --state DIR (registry: --data DIR), or run it in the environment's folder",
    )


def _tls(cert: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    """The files of a registry that speaks HTTPS; None when it speaks HTTP."""
    from milkrun.registry.http.tls import TlsFiles

    if cert and key:
        return TlsFiles(cert.absolute(), key.absolute(), ca and ca.absolute())
    if cert or key or ca:
        raise UsageError("TLS takes a certificate and its key", remedy="give both --tls-cert and --tls-key")
    return None


@click.group(invoke_without_command=True)
@click.option("--http", default="", metavar="HOST:PORT", help="Where it listens.")
@click.option("--dns", default="", metavar="HOST:PORT", help="Where it answers DNS (default: nowhere).")
@click.option(
    "--srv-weight-scale",
    type=click.IntRange(1, 65_535),
    help="What SRV weights are multiplied by (HAProxy reads 256 as 1).",
)
@click.option(
    "--check-allow",
    multiple=True,
    metavar="CIDR",
    help="A network that health checks may reach, besides a service's own address and loopback; repeatable.",
)
@click.option(
    "--check-damping/--no-check-damping",
    default=True,
    help="Whether a flapping check must be calm for a minute before it counts as better.",
)
@click.option("--tls-cert", type=_file, help="Speak HTTPS, and show the certificate of this PEM file.")
@click.option("--tls-key", type=_file, help="The certificate's private key.")
@click.option(
    "--tls-ca", type=_file, help="Take only clients with a certificate that one of this file signed."
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A name that it answers to, besides localhost, addresses, its own and *.consul; repeatable.",
)
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Its data folder.")
@click.option("--host", default="", help="Its node's name (default: what the system says).")
@click.pass_context
def registry(
    context: click.Context,
    *,
    http: str,
    dns: str,
    srv_weight_scale: int | None,
    check_allow: tuple[str, ...],
    check_damping: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    allow_host: tuple[str, ...],
    data: Path | None,
    host: str,
) -> None:
    """Run the registry: Consul's HTTP API and DNS, kept in a folder."""
    if context.invoked_subcommand:
        return
    place: Place = context.obj
    from milkrun.cli import daemon
    from milkrun.model import host_port
    from milkrun.registry.checks.damping import Damping
    from milkrun.registry.checks.reach import parse
    from milkrun.registry.server import serve
    from milkrun.settings.environment import RegistrySettings

    data_dir = _state_dir(place, data, "registry")
    settings = RegistrySettings()
    if not http and (environment := place.environment()):
        settings = environment.registry
    listen = host_port(http or settings.http)
    answer = host_port(dns or settings.dns) if dns or settings.dns else None
    scale = srv_weight_scale or settings.srv_weight_scale
    node = host or daemon.this_host()
    allowed = parse(check_allow)
    tls = _tls(tls_cert, tls_key, tls_ca)

    async def body(handover: asyncio.Event) -> None:
        served = serve(
            listen,
            data_dir,
            node=node,
            dns=answer,
            srv_weight_scale=scale,
            check_allow=allowed,
            damping=Damping() if check_damping else None,
            tls=tls,
            allow_hosts=allow_host,
        )
        await daemon.ends_at_handover(handover, served)

    daemon.run("registry", data_dir, body)


registry.add_command(snapshot)


@click.command()
@_registry
@_state
@_host
@click.pass_obj
def agent(place: Place, registry: str, state: Path | None, host: str) -> None:
    """Run the agent of this host: it starts, probes, registers and stops instances."""
    from milkrun.agent.daemon import run
    from milkrun.cli import daemon

    state_dir = _state_dir(place, state, "agent")
    folder = place.folder_if_any()
    address = place.address(registry)
    where = folder.path if folder else Path.cwd()
    name = host or daemon.this_host()
    daemon.run(
        "agent",
        state_dir,
        lambda handover: run(address, host=name, state_dir=state_dir, folder=where, handover=handover),
    )


@click.command()
@click.argument("name")
@_registry
@_state
@_host
@click.option(
    "--accept-older", is_flag=True, help="Once: follow git even if it went back to an older generation."
)
@click.pass_obj
def router(
    place: Place, *, name: str, registry: str, state: Path | None, host: str, accept_older: bool
) -> None:
    """Run the router NAME of milkrun.toml: one load balancer with its own HAProxy."""
    from milkrun.cli import daemon
    from milkrun.router.daemon import run

    environment = place.environment()
    if environment and name not in environment.routers:
        raise NotFound(
            f"milkrun.toml has no router {name!r}; it has: {', '.join(sorted(environment.routers)) or 'none'}",
            remedy=f"add [routers.{name}] to {place.folder().settings_file}, or name one that is there",
        )
    state_dir = _state_dir(place, state, f"routers/{name}")
    address = place.address(registry)
    host = host or daemon.this_host()
    daemon.run(
        name,
        state_dir,
        lambda handover: run(
            address, name=name, host=host, state_dir=state_dir, handover=handover, accept_older=accept_older
        ),
    )


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
    state_dir = _state_dir(place, state, "gitsync")
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
