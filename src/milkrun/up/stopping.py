"""Stops an environment's parts in order, in bounded time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from milkrun.settings.folder import Folder
from milkrun.up import containers, leftovers
from milkrun.up.parts import Part
from milkrun.up.process import PartProcess

PATIENCE_S = 1.0
"""After this long a person wants to know what is waited for."""

KILLED_S = 5.0


async def stop(
    folder: Folder,
    groups: list[list[tuple[Part, PartProcess]]],
    say: Callable[[str], None],
    hard: asyncio.Event,
) -> None:
    """Nothing of the environment runs any more: each group has ended after the one before it.

    `hard` cuts it short: everything is killed.
    """
    for group in groups:
        for _, process in group:
            process.tell(signal.SIGTERM)
        await asyncio.gather(*(_ended(part, process, say, hard) for part, process in group))
    await _sweep(folder, say, hard)


async def _ended(part: Part, process: PartProcess, say: Callable[[str], None], hard: asyncio.Event) -> None:
    waited_s = 0.0
    while not process.exited.is_set() and waited_s < part.stop_s and not hard.is_set():
        if waited_s == PATIENCE_S:
            say(f"waits for {part.name} to end (at most {part.stop_s:g} s)")
        await _either(process.exited, hard, PATIENCE_S)
        waited_s += PATIENCE_S
    if not process.exited.is_set():
        if not hard.is_set():
            say(f"{part.name} did not end within {part.stop_s:g} s: killed")
        process.tell(signal.SIGKILL)
        await process.ends_within(KILLED_S)
    if not hard.is_set():
        say(f"{part.name} has ended")


async def _sweep(folder: Folder, say: Callable[[str], None], hard: asyncio.Event) -> None:
    """What the parts should have stopped and did not is killed."""
    for _ in range(3):
        # A killed process may have a child that only shows up now: look until there is none.
        killed = leftovers.kill(folder)
        if not killed:
            break
        if not hard.is_set():
            for child in killed:
                say(f"{child.what} (pid {child.identity.pid}) was left over: killed")
        await asyncio.sleep(0.1)
    removed, stay = await containers.remove(folder)
    for name in removed:
        if not hard.is_set():
            say(f"the container {name} was left over: killed and removed")
    for error in stay:
        say(f"containers of this environment may run on: {error.message}; {error.remedy}")


async def _either(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(first.wait()), tasks.create_task(second.wait())]
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
