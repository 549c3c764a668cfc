"""Runs the program that carries out a phase: under the service's lock, in its time, and silent about the address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path

from milkrun.errors import MilkrunError
from milkrun.model import ServiceName, VersionName
from milkrun.rollout.migrations import hiding, leash
from milkrun.rollout.migrations.database import Address, Connection, translated
from milkrun.rollout.migrations.steps import Command
from milkrun.settings.migration import Phase
from milkrun.settings.placeholders import filled

LOOK_S = 1.0
"""So often it is looked whether the lock is still held."""
SHOWN_AT_MOST = 300


class CommandFailed(MilkrunError):
    """The program said no, could not be started, or took too long. What it did is its own to know."""

    code = "command-failed"


class Programs:
    """Runs programs in `folder`, for one version's migration; `rollout` is what it belongs to."""

    def __init__(
        self, folder: Path, to: Address, service: ServiceName, version: VersionName, rollout: str
    ) -> None:
        self._folder, self._to = folder, to
        self._names = {"service": str(service), "version": str(version), "rollout": rollout}

    async def run(self, command: Command, phase: Phase, lock: Connection, say: Callable[[str], None]) -> None:
        """The program has ended with 0, and its group is gone; each last line that it prints is said.

        Raises CommandFailed, or DatabaseGone when the connection that holds the lock is lost: then another engine
        may begin, and the program is stopped first.
        """
        names = self._names | {"phase": phase}
        words = filled(command.words, names | {"python": sys.executable})
        process = await self._start(words, names)
        last = ""

        def tell(line: str) -> None:
            nonlocal last
            last = line[:SHOWN_AT_MOST]
            say(f"{command.place}: {last}")

        try:
            told, lost = await _watched(
                process, command, lock, tell, hiding.Lines(hiding.secrets(self._to.reveal()))
            )
        finally:
            _kill(process)
            await process.wait()
        if lost:
            raise lost
        if told is None:
            raise CommandFailed(
                f"{command.place}: {words[0]} took more than {command.timeout_s:g} s and was stopped",
                remedy="raise its `timeout_s`, or see why it takes so long",
            )
        if told != "0":
            said = f": {last}" if last else ""
            raise CommandFailed(f"{command.place}: {words[0]} ended with {told or 'nothing said'}{said}")

    async def _start(self, words: list[str], names: dict[str, str]) -> Process:
        variables = {f"MILKRUN_{name.upper()}": value for name, value in names.items()}
        variables["PGAPPNAME"] = f"milkrun/{names['service']}/{names['version']}/command"[:63]
        variables["MILKRUN_DATABASE_URL"] = self._to.reveal()
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", leash.__file__, *words),
                cwd=self._folder,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=_environment() | variables,
                start_new_session=True,
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CommandFailed(f"{words[0]} cannot be started in {self._folder}: {reason}") from None


async def _watched(
    process: Process,
    command: Command,
    lock: Connection,
    tell: Callable[[str], None],
    lines: hiding.Lines,
) -> tuple[str | None, MilkrunError | None]:
    """The status that was told, None when it took too long; or why the lock is no longer held."""
    assert process.stdout  # noqa: S101 - both were asked for
    assert process.stderr  # noqa: S101
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_read(process.stdout, lines, tell))
        status = tasks.create_task(process.stderr.read())
        losing = tasks.create_task(_lost(lock, over))
        try:
            await asyncio.wait(
                [status, losing], timeout=command.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            ended = status.done()
        finally:
            # What the program left running would hold the output open.
            _kill(process)
            over.set()
    return (status.result().decode(errors="replace") if ended else None), losing.result()


async def _read(stream: StreamReader, lines: hiding.Lines, tell: Callable[[str], None]) -> None:
    while chunk := await stream.read(1 << 16):
        for line in lines.feed(chunk)[-1:]:
            tell(line)
    for line in lines.end():
        tell(line)


async def _lost(lock: Connection, over: asyncio.Event) -> MilkrunError | None:
    """Why the connection is gone, as soon as it is; None when that was not so until it was over."""
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), LOOK_S)
        if not over.is_set():
            try:
                with translated():
                    await lock.execute("SELECT 1")
            except MilkrunError as error:
                return error
    return None


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """The engine's own, but for the registry's token: who holds it may do everything."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_HTTP_TOKEN")}
