"""The example as an environment of its own in a new folder, on ports that nobody uses, and its `milkrun` commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from milkrun import repository

EXAMPLE = Path(__file__).resolve().parent.parent
PARTS = ("milkrun.toml", "services", "deploy", "apps", "migrations")
INSTANCES = 24
Say = Callable[[str], None]


class Failed(Exception):
    """A command did not do what it should. Says which, and what it said."""


class Farm:
    """An environment in a folder."""

    def __init__(self, folder: Path, ports: list[int], say: Say) -> None:
        self.folder, self.say = folder, say
        self.url = f"http://127.0.0.1:{ports[2]}/bottles"
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CONSUL_", "MILKRUN_", "PG"))
        }

    async def milkrun(self, *arguments: str, quiet: bool = False) -> str:
        """What the command printed on stdout; all that it says is passed on. Raises Failed for a bad exit status."""
        process = await self.started(*arguments, stderr=asyncio.subprocess.PIPE)
        lines: dict[str, list[str]] = {"stdout": [], "stderr": []}

        async def relay(name: str, stream: asyncio.StreamReader) -> None:
            async for line in stream:
                lines[name].append(line.decode(errors="replace").rstrip())
                if not quiet:
                    self.say(f"    {lines[name][-1]}")

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(relay("stdout", process.stdout))
                tasks.create_task(relay("stderr", process.stderr))
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if status:
            said = "\n".join(lines["stderr"][-20:])
            raise Failed(f"`milkrun {' '.join(arguments)}` ended with {status}\n{said}")
        return "\n".join(lines["stdout"])

    async def started(
        self, *arguments: str, stderr: int = asyncio.subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        """A `milkrun` command that goes on."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "milkrun", *arguments, cwd=self.folder, env=self._environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=stderr,
            start_new_session=True, limit=1 << 22,
        )  # fmt: skip


@asynccontextmanager
async def farm(folder: Path, ports: list[int], database: str, say: Say, quick: bool) -> AsyncIterator[Farm]:
    """The environment runs meanwhile, with the first version of the ledger. `ports` are free ones, in a row."""
    for part in PARTS:
        copy = shutil.copytree if (EXAMPLE / part).is_dir() else shutil.copy
        copy(EXAMPLE / part, folder / part)
    shutil.copy(EXAMPLE / "gitignore", folder / ".gitignore")
    _replace(folder / "milkrun.toml", {
        "127.0.0.1:8500": f"127.0.0.1:{ports[0]}",
        "127.0.0.1:8600": f"127.0.0.1:{ports[1]}",
        "127.0.0.1:8222": f"127.0.0.1:{ports[2]}",
        "127.0.0.1:8424": f"127.0.0.1:{ports[3]}",
        "[8120, 8149]": f"[{ports[-INSTANCES]}, {ports[-1]}]",
    })  # fmt: skip
    if quick:
        _replace(folder / "services" / "ledger.toml", {
            "analyse 5s": "analyse 1s", "bake_s = 3.0": "bake_s = 0.5", "min_requests = 200": "min_requests = 100",
            "failures_matter_from = 5.0": "failures_matter_from = 25.0",
        })  # fmt: skip
    secret = folder / "secrets" / "database"
    secret.parent.mkdir(mode=0o700)
    secret.touch(mode=0o600)
    secret.write_text(f"{database}\n")
    await repository.create(folder, "main", "The ledger as it was: version 1.0")
    this = Farm(folder, ports, say)
    try:
        await this.milkrun("up", "--detach", quiet=True)
        yield this
    finally:
        # From here on it ends by itself: a second Ctrl-C would only leave something running.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        say("\ntaking all of it down")
        await this.milkrun("down", quiet=True)


def _replace(file: Path, new: dict[str, str]) -> None:
    text = file.read_text()
    for before, after in new.items():
        if before not in text:
            raise Failed(f"{file.name} has no {before!r}")
        text = text.replace(before, after)
    file.write_text(text)


def free_ports() -> list[int]:
    """Ports in a row that nobody listens on now, below the range that outgoing connections take theirs from."""
    for _ in range(200):
        first = random.randrange(12_000, 32_000)
        row = list(range(first, first + 5 + INSTANCES))
        if all(_free(port) for port in row):
            return row
    raise Failed("no free ports in a row on 127.0.0.1")


def _free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


@asynccontextmanager
async def reading(this: Farm, rate: float) -> AsyncIterator[Callable[[], str]]:
    """`milkrun load` reads meanwhile; after the end the function gives what it printed as JSON."""
    said: list[str] = []
    load = await this.started("load", this.url, "--rate", str(rate), "--duration", "24h", "--json")
    try:
        yield lambda: said[0] if said else ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            load.send_signal(signal.SIGINT)
        out, _ = await load.communicate()
        said.append(out.decode())
