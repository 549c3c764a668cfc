"""`milkrun weights`: show how a service's traffic is shared, or change it with a commit."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from milkrun.cli import terminal
from milkrun.cli.place import Place
from milkrun.errors import Degraded, NotFound, UsageError
from milkrun.settings.text import nearest

if TYPE_CHECKING:
    from milkrun.consul import Address
    from milkrun.model import CommitId, RouterReport, ServiceName, VersionName
    from milkrun.repository import Repository
    from milkrun.settings.folder import Folder

DEPLOY_FILE_AT_MOST = 1 << 20


@click.command()
@click.argument("service")
@click.argument("pairs", nargs=-1, metavar="[VERSION=WEIGHT]...")
@click.option("--wait/--no-wait", default=True, help="Return when every live router serves it (default).")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(min=0), metavar="S")
@click.option("--json", is_flag=True, help="One JSON object.")
@click.option("--registry", default="", help="The registry's address, when it is not the environment's own.")
@click.pass_obj
def weights(
    place: Place,
    *,
    service: str,
    pairs: tuple[str, ...],
    wait: bool,
    timeout: float,
    json: bool,
    registry: str,
) -> None:
    """Show the wanted and the observed share of each version, or set weights and wait until they are served.

    Exit status: 3 unknown service or version, 5 nobody or not everybody serves it in time, 6 the registry is
    away (the commit is made all the same), 7 a router holds, 8 the file is refused.
    """
    address = place.address(registry)
    if not pairs:
        _show(address, service, json=json)
        return
    wanted = parse_pairs(pairs)
    folder, environment = place.folder(), place.environment()
    branch = environment.git.branch if environment else "main"
    change = asyncio.run(_change(folder, branch, service, wanted))
    _tell(change)
    reports = None
    start = time.monotonic()
    if wait:
        reports = asyncio.run(_served(address, change, timeout))
        terminal.say(f"served by every live router after {time.monotonic() - start:.2f} s")
    if json:
        terminal.data(_result(change, reports, time.monotonic() - start))
    elif reports is not None:
        terminal.show(_served_line(change, report) for report in reports)


def parse_pairs(pairs: tuple[str, ...]) -> dict[VersionName, float]:
    """`0.0.1=80 0.0.2=20` as weights by version. Raises UsageError for anything else."""
    from milkrun.model import version_name

    found: dict[VersionName, float] = {}
    for pair in pairs:
        name, equals, number = pair.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not equals or not 0 <= weight < float("inf"):
            raise UsageError(
                f"{pair!r} is not VERSION=WEIGHT with a number from 0", remedy="for example 0.0.1=80 0.0.2=20"
            )
        version = version_name(name.removeprefix("version="))
        if version in found:
            raise UsageError(f"version {version} stands there twice", remedy="name each version once")
        found[version] = weight
    return found


class Change:
    """What was committed, or found to be there already."""

    def __init__(
        self, service: ServiceName, file: str, weights: dict[VersionName, float], *, changed: bool
    ) -> None:
        self.service = service
        self.file = file
        self.weights = weights
        self.changed = changed
        self.commit: CommitId
        self.generation = 0


def _show(address: Address, service: str, *, json: bool) -> None:
    from milkrun.cli.status import look
    from milkrun.cli.view_text import weights_lines

    view = asyncio.run(look(address, service))
    if json:
        terminal.data(view)
    else:
        terminal.show(weights_lines(view, view.services[0]))
    if view.problems:
        raise click.exceptions.Exit(Degraded.exit_status)


async def _change(folder: Folder, branch: str, service: str, wanted: dict[VersionName, float]) -> Change:
    """The weights are in the last commit of the branch."""
    from milkrun.model import ServiceName
    from milkrun.repository import Repository, commit_file
    from milkrun.settings import deploy

    repository = await Repository.open(folder.path)
    head = await repository.head(branch)
    name = ServiceName(service)
    file = folder.deploy_file(service)
    old = await _deploy_file(repository, head, file, service)
    new = deploy.change_weights(old, wanted, file)
    weights = deploy.parse(new, file).weights
    change = Change(name, file, weights, changed=weights != deploy.parse(old, file).weights)
    if change.changed:
        message = f"{name}: " + " ".join(f"{version}={weight:g}" for version, weight in wanted.items())
        change.commit = await commit_file(repository, branch, file, new, message, parent=head)
    else:
        change.commit = head
    change.generation = await repository.generation(change.commit)
    return change


async def _deploy_file(repository: Repository, head: CommitId, file: str, service: str) -> bytes:
    files = await repository.files(head, "deploy")
    if file in files:
        return await repository.read(head, file, DEPLOY_FILE_AT_MOST)
    known = [path.removeprefix("deploy/").removesuffix(".json") for path in files if path.endswith(".json")]
    near = nearest(service, known)
    raise NotFound(
        f"git has no service {service!r}: there is no {file}; there are: {', '.join(known) or 'none'}",
        remedy=f"did you mean {near}?" if near else f"write {file} and commit it",
    )


def _tell(change: Change) -> None:
    pairs = " ".join(f"{version}={weight:g}" for version, weight in change.weights.items())
    if change.changed:
        terminal.say(f"committed {change.commit[:7]}: {change.service} {pairs}")
    else:
        terminal.say(f"{change.service} has these weights already: {pairs}; no commit is made")


async def _served(address: Address, change: Change, timeout_s: float) -> list[RouterReport]:
    from milkrun.cli.quiet import quiet_logs
    from milkrun.consul import Registry
    from milkrun.overview.waiting import until_served

    quiet_logs()
    async with Registry(address) as registry:
        return await until_served(
            registry,
            change.service,
            file=change.file,
            commit=change.commit,
            generation=change.generation,
            timeout_s=timeout_s,
        )


def _result(change: Change, reports: list[RouterReport] | None, waited_s: float) -> dict[str, object]:
    """The object of `milkrun weights SERVICE VERSION=WEIGHT --json`; `routers` is null with --no-wait."""
    return {
        "schema_version": 1,
        "service": change.service,
        "weights": change.weights,
        "changed": change.changed,
        "commit": change.commit,
        "generation": change.generation,
        "waited_ms": round(waited_s * 1000, 1) if reports is not None else None,
        "routers": None
        if reports is None
        else [{"router": one.router, "commit": one.commit, "generation": one.generation} for one in reports],
    }


def _served_line(change: Change, report: RouterReport) -> str:
    shares = " ".join(
        f"{version}={100 * traffic.share / 10_000:.2f}%"
        for version, traffic in sorted(report.versions.items())
    )
    return f"{report.router} serves {(report.commit or change.commit)[:7]}: {shares}"
