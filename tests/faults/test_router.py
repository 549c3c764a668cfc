"""F3, F29: the router itself is killed half way, or has no file descriptor left."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from pathlib import Path

from .conftest import SOAK
from .herd import worker_of

KILLED = """
import os, signal, sys
from milkrun.router.haproxy.socket import RuntimeSocket
from milkrun.cli import main

left, after = int(sys.argv.pop(1)), sys.argv.pop(1) == "after"
ask = RuntimeSocket.ask

async def killed(self, command, **options):
    global left
    changes = not command.startswith("show ")
    left -= changes
    if changes and left < 0:
        if after:
            await ask(self, command, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return await ask(self, command, **options)

RuntimeSocket.ask = killed
sys.argv[0] = "milkrun"
main()
"""


@contextlib.asynccontextmanager
async def router_process(herd, *program: str):
    log = (herd.state.parent / "router.log").open("wb")
    command = [sys.executable, *program, "router", "lb-goat", "--registry", herd.between.url]
    process = await asyncio.create_subprocess_exec(
        *command, "--state", str(herd.state), cwd=herd.state.parent, stderr=log
    )
    try:
        yield process
    finally:
        log.close()
        if process.returncode is None:
            process.terminate()
        await process.wait()
        print((herd.state.parent / "router.log").read_text())


async def test_f3_a_router_that_is_killed_between_two_commands(herd, chance):
    """What it was told half of serves nobody wrong, and its successor ends it, without a reload."""
    await herd.three()
    async with contextlib.AsyncExitStack() as load:
        async with herd.router(hand_over=True):
            await herd.follows(1)
            await load.enter_async_context(herd.load())
        worker = worker_of(herd.master())
        last = 4 if SOAK else 2
        for generation in range(2, last + 1):
            await herd.goat(f"x{generation}", "0.0.3")
            await herd.registry.maintenance("a", enable=True)
            await herd.weigh(generation, {"0.0.1": chance.randrange(1, 100), "0.0.2": 50, "0.0.3": 50})
            kill = ["-c", KILLED, str(chance.randrange(3)), chance.choice(["before", "after"])]
            async with router_process(herd, *kill) as process, asyncio.timeout(60):
                assert await process.wait() == -9
            await herd.more(20)
        async with herd.router():
            await herd.more(5, f"x{last}")
            await rests(herd, "a")
            assert worker_of(herd.master()) == worker, "reloaded"
            await load.aclose()
    herd.proved()


async def rests(herd, name: str) -> None:
    """The goat gets no request any more: not one of twenty."""
    async with asyncio.timeout(60):
        before = -1
        while before != len(herd.goats[name].asked):
            before = len(herd.goats[name].asked)
            await herd.more(20)


async def test_f29_a_router_without_a_file_descriptor(herd, chance):
    """It lives, HAProxy serves, and what it missed it does when there are some again."""
    await herd.three()
    async with router_process(herd, "-m", "milkrun") as process:
        await herd.follows(1)
        async with herd.load():
            limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            few = len(list(Path(f"/proc/{process.pid}/fd").iterdir())) + chance.randrange(-3, 1)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (few, limits[1]))
            await herd.weigh(2, {"0.0.1": 50, "0.0.2": 50})
            await herd.goat("d", "0.0.2")
            await herd.more(150)
            assert process.returncode is None
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
            await herd.follows(2)
            assert process.returncode is None
        herd.proved()
