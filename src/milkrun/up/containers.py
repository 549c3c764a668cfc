"""The containers that an environment's agent made and that outlived it: the engine knows them by their label."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

import msgspec

from milkrun.agent.records import Record
from milkrun.agent.units import recipe
from milkrun.agent.units.docker import Engine, EngineAway, socket_path
from milkrun.agent.units.docker_answers import Container
from milkrun.errors import MilkrunError
from milkrun.settings.folder import Folder
from milkrun.settings.service import ServiceSettings

_T = TypeVar("_T")

ANSWER_S = 5.0
"""A stop waits no longer for an engine that hangs: most environments have nothing there."""


def needed(services: Iterable[ServiceSettings]) -> bool:
    """Whether any of these services runs in containers."""
    return any(settings.docker.image for settings in services)


async def answers() -> str:
    """Where the engine listens. Raises EngineAway or EngineRefused when nothing can be asked there."""
    async with Engine(socket_path()) as engine:
        await _answered(engine.listed())
    return str(socket_path())


async def left(folder: Folder) -> list[str]:
    """Their names; none where no engine answers."""
    async with Engine(socket_path()) as engine:
        try:
            return [_name(container) for container in await _own(engine, folder)]
        except MilkrunError:
            return []


async def remove(folder: Folder) -> tuple[list[str], list[MilkrunError]]:
    """They are killed and gone: the names of those there were, and what kept others. An engine that does not answer is
    told of if the agent left a record of a container.
    """
    gone: list[str] = []
    stay: list[MilkrunError] = []
    async with Engine(socket_path()) as engine:
        try:
            found = await _own(engine, folder)
        except MilkrunError as error:
            return [], [error] if _recorded(folder) else []
        for container in found:
            try:
                await engine.remove(container.id)
                gone.append(_name(container))
            except MilkrunError as error:
                stay.append(error)
    return gone, stay


async def _own(engine: Engine, folder: Folder) -> list[Container]:
    # As the agent writes it: the folder's one spelling.
    labels = [f"{recipe.STATE}={folder.agent.resolve()}"]
    ids = await _answered(engine.listed(labels, stopped=True))
    return [seen for each in ids if (seen := await _answered(engine.inspect(each)))]


async def _answered(question: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await question
    except TimeoutError as error:
        raise EngineAway(
            f"the Docker engine at {socket_path()} says nothing for {ANSWER_S:g} s",
            remedy="see whether it hangs",
        ) from error


def _recorded(folder: Folder) -> bool:
    for path in (folder.agent / "units").glob("*.json"):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (msgspec.DecodeError, OSError):
            continue
        if record.settings.docker.image:
            return True
    return False


def _name(container: Container) -> str:
    return container.name.removeprefix("/")
