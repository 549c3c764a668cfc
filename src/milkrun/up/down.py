"""`milkrun down`: the environment is told to stop, or stopped part by part when nobody is there to tell."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from milkrun.errors import InputRefused, TimedOut
from milkrun.host.process import identity, runs
from milkrun.settings.environment import Environment
from milkrun.settings.folder import Folder
from milkrun.up import containers, leftovers
from milkrun.up.lock import holder
from milkrun.up.parts import ROUTER_STOP_S, Kind, Part, parts, stop_order
from milkrun.up.process import PartProcess
from milkrun.up.record import environment, the_only_up
from milkrun.up.run import services
from milkrun.up.stopping import stop

LOOK_S = 0.1
SPARE_S = 30.0


async def down(folder: Folder, say: Callable[[str], None]) -> bool:
    """Nothing of the environment runs here. False when nothing ran before either."""
    known = parts(_environment(folder), services(folder), str(folder.path))
    pid = holder(folder.lock_file)
    running = identity(pid) if pid else None
    if running and (up := PartProcess.adopt(running, lambda _: None)):
        await _tell_up(folder, up, known, say)
        return True
    with the_only_up(folder):
        return await _stop_leftovers(folder, known, say)


def _environment(folder: Folder) -> Environment:
    """What the environment is, as far as that can be known: a stop is not to fail for a wrong file."""
    try:
        return environment(folder)[0]
    except InputRefused:
        return Environment(name="unknown")  # the routers are found by their locks


async def _tell_up(folder: Folder, up: PartProcess, known: list[Part], say: Callable[[str], None]) -> None:
    """`up` has stopped its parts and ended."""
    say(f"tells `milkrun up` (pid {up.identity.pid}) to stop")
    up.tell(signal.SIGTERM)
    limit_s = sum(part.stop_s for part in known) + SPARE_S
    left = leftovers.parts(folder)

    def look() -> None:
        # Found in the order of the start: what ended within one look ended the other way round.
        for name in [name for name, part in reversed(left.items()) if not runs(part)]:
            del left[name]
            say(f"{name} has ended")

    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(up.ends_within(limit_s))
        while not ending.done():
            look()
            await asyncio.wait([ending], timeout=LOOK_S)
    look()  # the last ones end just before `up` itself
    if not ending.result():
        raise TimedOut(
            f"`milkrun up` (pid {up.identity.pid}) has not ended within {limit_s:g} s",
            remedy=f"kill -9 {up.identity.pid}, then once more: milkrun down",
        )


async def _stop_leftovers(folder: Folder, known: list[Part], say: Callable[[str], None]) -> bool:
    """What a killed `up` left has stopped; False when there was nothing."""
    found = leftovers.parts(folder)
    if not found and not leftovers.children(folder) and not await containers.left(folder):
        return False
    if found:
        say(f"`milkrun up` is dead and left {', '.join(sorted(found))}: stops them")
    running = {name: PartProcess.adopt(who, lambda _: None) for name, who in found.items()}
    # A router that milkrun.toml no longer has may still run: nobody needs it, so it stops first.
    names = {part.name for part in known}
    dropped = [
        Part(name=name, kind=Kind.ROUTER, arguments=[], stop_s=ROUTER_STOP_S)
        for name in found
        if name not in names
    ]
    groups = [
        [(part, process) for part in group if (process := running.get(part.name))]
        for group in [dropped, *stop_order(known)]
    ]
    await stop(folder, groups, say, asyncio.Event())
    folder.up_file.unlink(missing_ok=True)
    return True
