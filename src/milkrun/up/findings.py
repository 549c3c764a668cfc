"""What `milkrun doctor` finds on this machine: each check a finding, none stops the others."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum

import msgspec

from milkrun.consul import Address, Registry
from milkrun.errors import InputRefused, MilkrunError
from milkrun.gitsync import secrets
from milkrun.overview.problems import problems
from milkrun.overview.reading import read
from milkrun.repository import Repository
from milkrun.router.envoy import binary as envoy
from milkrun.router.haproxy import binary
from milkrun.settings import deploy, service
from milkrun.settings.environment import Environment
from milkrun.settings.folder import Folder
from milkrun.settings.text import typed
from milkrun.up import containers, leftovers, ports, record
from milkrun.up.parts import parts
from milkrun.up.run import services
from milkrun.up.supervisor import leftover_pids

CLOCK_OFF_S = 5.0
FILE_AT_MOST = 1 << 20


class Verdict(StrEnum):
    """Whether a finding needs somebody."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what it looked at, the verdict, what it saw, and what to do about it."""

    verdict: Verdict
    subject: str
    text: str
    remedy: str = ""


async def examine(folder: Folder | None, address: Address | None) -> list[Finding]:
    """All findings, the machine first, then the environment's files, then what runs.

    `address` is None when nothing says where the registry is.
    """
    found = [_python(), await _git(), _haproxy()]
    environment: Environment | None = None
    if folder is None:
        found.append(
            _warn("environment", "this folder is in no environment", "milkrun init DIR --template dairy")
        )
    else:
        try:
            environment, why = record.environment(folder)
            if why:
                folder.load_environment()
            found.append(_ok("milkrun.toml", f"{environment.name}: valid"))
        except MilkrunError as error:
            found.append(_fail("milkrun.toml", error))
        found += _files(folder)
        found += [one async for one in _repository(folder, environment)]
    if environment and any(router.data_plane == "envoy" for router in environment.routers.values()):
        found.append(_envoy())
    if folder and containers.needed(services(folder).values()):
        found.append(await _docker())
    if folder and environment:
        found += _ports(folder, environment)
    if folder:
        found.append(_up(folder, environment))
    return [
        *found,
        *[one async for one in _registry(address, _runs(folder))],
        *_variables(folder, environment),
    ]


def _python() -> Finding:
    version = ".".join(str(number) for number in sys.version_info[:3])
    return _ok("python", f"{version} ({sys.executable})")


async def _git() -> Finding:
    try:
        process = await asyncio.create_subprocess_exec(
            "git", "--version", stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        out, _ = await asyncio.wait_for(process.communicate(), 5)
    except (OSError, TimeoutError) as error:
        return Finding(
            verdict=Verdict.FAIL, subject="git", text=f"cannot be run: {error}", remedy="install git"
        )
    return _ok("git", out.decode(errors="replace").strip().removeprefix("git version "))


def _envoy() -> Finding:
    try:
        found = envoy.find()
    except MilkrunError as error:
        return _fail("envoy", error)
    return _ok("envoy", f"{found.version_text} ({found.path})")


async def _docker() -> Finding:
    """Asked only where a service needs it."""
    try:
        return _ok("docker", f"the engine answers at {await containers.answers()}")
    except MilkrunError as error:
        return _fail("docker", error)


def _haproxy() -> Finding:
    try:
        found = binary.find()
    except MilkrunError as error:
        return _fail("haproxy", error)
    return _ok("haproxy", f"{found.version_text} ({found.path})")


def _files(folder: Folder) -> Iterator[Finding]:
    """Each settings and deploy file of the work tree, read by the parser that gitsync uses."""
    known = services(folder)
    for where, suffix, parse in (("services", ".toml", service.load), ("deploy", ".json", deploy.parse)):
        paths = sorted((folder.path / where).glob(f"*{suffix}"))
        good = 0
        for path in paths:
            file = f"{where}/{path.name}"
            try:
                parse(path.read_bytes(), file)
                if where == "services":
                    service.check_circle(known, service.name_of(file), path.read_bytes(), file)
                good += 1
            except InputRefused as error:
                yield _fail(file, error)
            except OSError as error:
                yield Finding(verdict=Verdict.FAIL, subject=file, text=error.strerror or str(error))
        if good:
            yield _ok(f"{where}/", f"{good} of {len(paths)} files valid")
        elif not paths:
            yield _warn(f"{where}/", "has no file yet", f"add {where}/NAME{suffix} and commit")


async def _repository(folder: Folder, environment: Environment | None) -> AsyncIterator[Finding]:
    branch = environment.git.branch if environment else "main"
    try:
        repository = await Repository.open(folder.path)
        head = await repository.head(branch)
        files = await repository.files(head)
    except MilkrunError as error:
        yield _fail("repository", error)
        return
    yield _ok("repository", f"{branch} at {head[:7]}, {len(files)} files")
    for name, settings in sorted(services(folder).items()):
        if given := secrets.given_away(settings, str(repository.folder), files):
            yield _fail(f"services/{name}.toml", given[1])
    changed = []
    for path in sorted(
        [*(folder.path / "deploy").glob("*.json"), *(folder.path / "services").glob("*.toml")]
    ):
        file = str(path.relative_to(folder.path))
        committed = await repository.read(head, file, FILE_AT_MOST) if file in files else None
        if committed != path.read_bytes():
            changed.append(file)
    if changed:
        yield _warn(
            "uncommitted",
            f"{', '.join(changed[:5])}: only commits are followed",
            f"git -C {typed(folder.path)} add deploy services && git -C {typed(folder.path)} commit",
        )


def _ports(folder: Folder, environment: Environment) -> Iterator[Finding]:
    own = leftover_pids(folder)
    for one in ports.wanted(environment):
        holder = ports.taken(one.address)
        if holder is None:
            yield _ok(one.address, f"free ({one.setting})")
        elif holder.pid in own:
            yield _ok(one.address, f"held by our own {holder}")
        else:
            yield Finding(
                verdict=Verdict.FAIL,
                subject=one.address,
                text=f"taken by {holder}",
                remedy=f"stop it, or change {one.setting} of {folder.settings_file} and commit",
            )


def _up(folder: Folder, environment: Environment | None) -> Finding:
    known = record.load(folder)
    running = leftovers.parts(folder)
    wanted = [part.name for part in parts(environment, services(folder))] if environment else []
    lacking = [name for name in wanted if name not in running]
    without = f", without {', '.join(lacking)}" if lacking else ""
    if known and known.up.alive():
        runs = f"runs (pid {known.up.pid}) with {', '.join(sorted(running)) or 'no part'}"
        return (
            _warn("up", runs + without, "milkrun status; milkrun logs PART") if without else _ok("up", runs)
        )
    if running:
        return _warn(
            "up",
            f"does not run, but {', '.join(sorted(running))} do{without}",
            f"milkrun up {typed(folder.path)} takes them over, milkrun down {typed(folder.path)} stops them",
        )
    return _warn("up", "does not run here", f"milkrun up {typed(folder.path)}")


def _runs(folder: Folder | None) -> bool:
    """Whether a registry should answer: always, but where `up` has not been called yet."""
    return folder is None or bool(leftovers.parts(folder))


async def _registry(address: Address | None, runs: bool) -> AsyncIterator[Finding]:
    if address is None:
        yield _warn("registry", "not asked: nothing says where it is", "mend milkrun.toml, then once more")
        return
    try:
        async with Registry(address) as registry:
            start = time.time()
            facts = await read(registry)
            yield _ok(
                "registry", f"{address.url} answers ({1000 * (time.time() - start):.0f} ms for all facts)"
            )
    except MilkrunError as error:
        yield _fail("registry", error) if runs else _warn("registry", error.message, error.remedy)
        return
    for part in [*facts.parts, *(one for group in facts.balancers.values() for one in group)]:
        if part.healthy:
            yield _ok(part.id, "alive")
        else:
            yield _warn(part.id, f"{part.health.value}: {part.reason}", "milkrun status")
    ahead = [one.applied_at for one in facts.routers] + ([facts.sync.synced_at] if facts.sync else [])
    off = max((moment - time.time() for moment in ahead), default=0.0)
    if off > CLOCK_OFF_S:
        yield _warn(
            "clock", f"another host's clock is {off:.0f} s ahead of this one's", "let NTP set the clocks"
        )
    else:
        yield _ok("clock", "no part reports from the future")
    for problem in problems(facts, now=time.time()):
        yield _warn("problem", problem.what, problem.remedy)


def _variables(folder: Folder | None, environment: Environment | None) -> Iterator[Finding]:
    set_ = os.environ.get("CONSUL_HTTP_ADDR", "")
    if folder and environment and set_ and environment.registry.http not in set_:
        yield _warn(
            "CONSUL_HTTP_ADDR",
            f"is {set_}: commands ask that registry, not this environment's ({environment.registry.http})",
            "unset CONSUL_HTTP_ADDR, if that is not meant",
        )
    if folder and folder.token_file.exists() and os.environ.get("CONSUL_HTTP_TOKEN"):
        yield _warn(
            "CONSUL_HTTP_TOKEN",
            f"is set: commands show that token, not this environment's own ({folder.token_file})",
            "unset CONSUL_HTTP_TOKEN, if that is not meant",
        )


def _ok(subject: str, text: str) -> Finding:
    return Finding(verdict=Verdict.OK, subject=subject, text=text)


def _warn(subject: str, text: str, remedy: str) -> Finding:
    return Finding(verdict=Verdict.WARN, subject=subject, text=text, remedy=remedy)


def _fail(subject: str, error: MilkrunError) -> Finding:
    return Finding(verdict=Verdict.FAIL, subject=subject, text=error.message, remedy=error.remedy)
