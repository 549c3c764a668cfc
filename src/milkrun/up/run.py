"""`milkrun up`: from nothing, or from what a killed one left, to an environment that serves, and back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

from milkrun.consul import Address, Registry
from milkrun.errors import InputRefused, MilkrunError
from milkrun.model import ServiceName
from milkrun.overview.facts import Facts
from milkrun.overview.reading import read
from milkrun.repository import Repository
from milkrun.router.haproxy import binary
from milkrun.settings import service as service_settings
from milkrun.settings.environment import Environment
from milkrun.settings.folder import SETTINGS_FILE, Folder
from milkrun.settings.service import ServiceSettings
from milkrun.settings.text import typed
from milkrun.up import leftovers, ports
from milkrun.up.parts import Kind, Part, parts
from milkrun.up.ready import Pending, pending
from milkrun.up.record import the_only_up
from milkrun.up.supervisor import Supervisor, leftover_pids, take_over

ANSWERS_S = 15.0
UP_S = 60.0
HAND_OVER_S = 10.0
LOOK_S = 0.1
TELL_S = 2.0
SETTINGS_AT_MOST = 1 << 20


async def run(folder: Folder, say: Callable[[str], None], when_up: Callable[[Facts], None]) -> None:
    """The environment has run until a signal told it to stop, and nothing of it is left but its data.

    `when_up` is called once, with the facts, when all that can be up is. Raises Conflict for a second `up`
    of the same environment, PortTaken when another program has one of its ports, PartMissing without HAProxy
    or git, NotFound when the folder is no git repository.
    """
    environment = folder.load_environment()
    wanted = parts(environment, services(folder), str(folder.path))
    supervisor = Supervisor(folder, environment, wanted, say)
    # Before anything can be started: from here on no signal ends this process with something left behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.told_to_stop)
    if any(router.data_plane == "haproxy" for router in environment.routers.values()):
        binary.find()
    await _committed(folder, environment, say)
    with the_only_up(folder):
        ports.check(environment, leftover_pids(folder), str(folder.settings_file))
        if found := leftovers.parts(folder):
            say(f"an `up` before this one left {', '.join(sorted(found))} running: takes over")
            await take_over(found, {part.name for part in wanted}, HAND_OVER_S)
        await _run(environment, wanted, supervisor, say, when_up)
        folder.up_file.unlink(missing_ok=True)
        say("everything has stopped")


async def _committed(folder: Folder, environment: Environment, say: Callable[[str], None]) -> None:
    """The folder is a repository with the branch; it is said when milkrun.toml is not what is committed there."""
    repository = await Repository.open(folder.path)
    head = await repository.head(environment.git.branch)
    committed = await repository.read(head, SETTINGS_FILE, SETTINGS_AT_MOST)
    if committed != folder.settings_file.read_bytes():
        say(f"{SETTINGS_FILE} has changes that are not committed: the routers follow the commit {head[:7]}")


async def _run(
    environment: Environment,
    wanted: list[Part],
    supervisor: Supervisor,
    say: Callable[[str], None],
    when_up: Callable[[Facts], None],
) -> None:
    async with asyncio.TaskGroup() as tasks:
        rotating = tasks.create_task(supervisor.rotate_logs())
        try:
            facts = await _started(environment, wanted, supervisor, tasks, say)
            if facts is not None and not supervisor.stopping.is_set():
                supervisor.ready()
                when_up(facts)
            await supervisor.stopping.wait()
        finally:  # whatever goes wrong here: nothing is left running that nobody watches
            await supervisor.stop()
        rotating.cancel()


async def _started(
    environment: Environment,
    wanted: list[Part],
    supervisor: Supervisor,
    tasks: asyncio.TaskGroup,
    say: Callable[[str], None],
) -> Facts | None:
    """Every part is kept running; the facts once all is up that will be, None when it should stop before."""
    since = time.time()
    for part in wanted:
        if supervisor.stopping.is_set():
            break
        tasks.create_task(supervisor.keep(part))
        if part.kind is Kind.REGISTRY:
            async with Registry(address(supervisor.folder, environment)) as registry:
                await _answers(registry, supervisor.stopping, say)
    # Only now: a registry that starts for the first time has just made the token.
    async with Registry(address(supervisor.folder, environment)) as registry:
        return await _up(registry, environment, since, supervisor.stopping, say)


def address(folder: Folder, environment: Environment) -> Address:
    """Where the environment's own registry is, with the token that its registry made."""
    return Address.from_environment(environment.registry.url, token_file=folder.token_file)


async def _answers(registry: Registry, stopping: asyncio.Event, say: Callable[[str], None]) -> None:
    """The registry answers, or has had its time to."""
    end = time.monotonic() + ANSWERS_S
    while time.monotonic() < end and not stopping.is_set():
        with contextlib.suppress(MilkrunError):
            if await registry.leader():
                return
        await asyncio.sleep(LOOK_S)
    if not stopping.is_set():
        say(f"the registry does not answer after {ANSWERS_S:g} s; goes on without it")


async def _up(
    registry: Registry,
    environment: Environment,
    since: float,
    stopping: asyncio.Event,
    say: Callable[[str], None],
) -> Facts | None:
    """The facts once all is up that will be, or after a minute; None when it should stop before."""
    end = time.monotonic() + UP_S
    told, told_at = Pending(), 0.0
    facts: Facts | None = None
    while not stopping.is_set():
        try:
            facts = await read(registry)
        except MilkrunError as error:
            now = Pending(waits=[f"the registry ({error.message})"])
        else:
            now = pending(facts, environment, since=since)
        for why in now.stuck:
            if why not in told.stuck:
                say(why)
        waits, late = now.waits != told.waits, time.monotonic() > end
        if now.over or late:
            if late:
                say(f"after {UP_S:g} s still waits for {', '.join(now.waits)}; goes on")
            return facts or Facts()
        if waits and time.monotonic() - told_at > TELL_S:
            say(f"waits for {', '.join(now.waits[:6])}")
            told_at = time.monotonic()
            told = now
        else:
            told = Pending(waits=told.waits, stuck=now.stuck)
        await asyncio.sleep(LOOK_S)
    return None


def services(folder: Folder) -> dict[ServiceName, ServiceSettings]:
    """The services as their files say; a wrong file is left out: gitsync says what is wrong."""
    found = {}
    for path in sorted((folder.path / "services").glob("*.toml")):
        try:
            file = f"services/{path.name}"
            found[service_settings.name_of(file)] = service_settings.load(path.read_bytes(), file)
        except (InputRefused, OSError):
            continue
    return found


def command_from(program: str, folder: Folder, here: Path) -> str:
    """How a person calls milkrun for this environment from the folder `here`."""
    if folder.path == here or folder.path in here.parents:
        return program
    shown = folder.path.relative_to(here) if folder.path.is_relative_to(here) else folder.path
    return f"{program} --env {typed(shown)}"
