"""`milkrun registry`: the registry as a daemon of its own, and its snapshots."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from milkrun.cli.place import Place
from milkrun.cli.snapshot import snapshot
from milkrun.errors import UsageError

if TYPE_CHECKING:
    from milkrun.registry.http.tls import TlsFiles
    from milkrun.settings.environment import RegistrySettings

_file = click.Path(dir_okay=False, path_type=Path)


def _tls(
    place: Place, own: RegistrySettings, cert: Path | None, key: Path | None, ca: Path | None
) -> TlsFiles | None:
    """The files of a registry that speaks HTTPS: the named ones, else the environment's; None when it speaks HTTP."""
    from milkrun.registry.http.tls import TlsFiles

    if own.tls_cert and not (cert or key or ca):
        home = place.folder().path
        return TlsFiles(home / own.tls_cert, home / own.tls_key, home / own.tls_ca if own.tls_ca else None)
    if cert and key:
        return TlsFiles(cert.absolute(), key.absolute(), ca and ca.absolute())
    if cert or key or ca:
        raise UsageError("TLS takes a certificate and its key", remedy="give both --tls-cert and --tls-key")
    return None


def _settings(place: Place, http: str, **said: object) -> RegistrySettings:
    """What milkrun.toml says, with what the command line `said` in its place; with an address it is not asked."""
    from milkrun.settings.environment import RegistrySettings

    environment = None if http else place.environment()
    settings = environment.registry if environment else RegistrySettings()
    given = {"http": http, **said}
    return msgspec.structs.replace(settings, **{name: value for name, value in given.items() if value})


def _token_file(place: Place, given: Path | None, data: Path | None) -> Path | None:
    """Where the registry's own token is: `given`, or the environment's; None for the data folder that was named."""
    if given:
        return given.absolute()
    folder = None if data else place.folder_if_any()
    return folder.token_file if folder else None


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
@click.option(
    "--acl",
    type=click.Choice(["open", "default", "closed"]),
    help="Who may do what without a token: everyone everything, this machine read (default), nobody anything.",
)
@click.option(
    "--token-file",
    type=_file,
    help="The registry's own token, made when it is not there (default: `token` in the data folder).",
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
    acl: str | None,
    token_file: Path | None,
    data: Path | None,
    host: str,
) -> None:
    """Run the registry: Consul's HTTP API and DNS, kept in a folder."""
    if context.invoked_subcommand:
        return
    place: Place = context.obj
    from milkrun.cli import daemon
    from milkrun.model import host_port
    from milkrun.registry.access.authority import Mode
    from milkrun.registry.checks.damping import Damping
    from milkrun.registry.checks.reach import parse
    from milkrun.registry.server import serve

    data_dir = place.state_dir(data, "registry")
    said = {"dns": dns, "srv_weight_scale": srv_weight_scale, "acl": acl}
    own = _settings(place, http, **said, check_allow=check_allow, allow_host=allow_host)
    listen, answer = host_port(own.http), host_port(own.dns) if own.dns else None
    allowed = parse(tuple(own.check_allow))
    tls = _tls(place, own, tls_cert, tls_key, tls_ca)

    async def body(handover: asyncio.Event) -> None:
        served = serve(
            listen,
            data_dir,
            node=host or daemon.this_host(),
            dns=answer,
            srv_weight_scale=own.srv_weight_scale,
            check_allow=allowed,
            damping=Damping() if check_damping else None,
            acl=Mode(own.acl),
            token_file=_token_file(place, token_file, data),
            tls=tls,
            allow_hosts=tuple(own.allow_host),
        )
        await daemon.ends_at_handover(handover, served)

    daemon.run("registry", data_dir, body)


registry.add_command(snapshot)
