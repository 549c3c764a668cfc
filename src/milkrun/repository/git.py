"""Runs the `git` program: no shell, no hooks, no prompt, no GIT_* variable of the caller, in bounded time.

The settings shut out hooks and other commands that a repository's own settings name, foreign protocols,
links, submodules and broken objects from a remote (the ways of CVE-2022-39253, 2024-32002 and 2025-48384).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path

import msgspec

from milkrun.errors import MilkrunError, PartMissing, TimedOut
from milkrun.settings.text import typed

CALL_WAIT_S = 15.0
OUTPUT_BYTES_AT_MOST = 64 << 20
TOO_LARGE = "File too large"
_SAID_BYTES_AT_MOST = 1 << 16

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "transfer.fsckObjects=true",
    "gc.autoDetach=false",
    "commit.gpgSign=false",
    "advice.graftFileDeprecated=false",
    "protocol.allow=never",
)
_VARIABLES = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
}


class Done(msgspec.Struct, frozen=True):
    """A call that ended with a status that its caller expects."""

    status: int
    out: bytes

    @property
    def text(self) -> str:
        """What it printed, without the last newline."""
        return self.out.decode(errors="replace").rstrip("\n")


class Git:
    """The `git` program in one folder. `protocols` may be used besides none, for a fetch."""

    def __init__(self, folder: Path, *, protocols: tuple[str, ...] = ()) -> None:
        self._folder = folder
        settings = (*_SETTINGS, *(f"protocol.{name}.allow=always" for name in protocols))
        self._prefix = ["-C", str(folder), *(word for setting in settings for word in ("-c", setting))]

    async def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (0,),
        wait_s: float = CALL_WAIT_S,
        file_bytes_at_most: int = 0,
    ) -> Done:
        """What git printed, when it ended with a status in `accept`; raises MilkrunError otherwise.

        Past `wait_s` seconds, or when the caller is cancelled, git and all that it started are gone. With
        `file_bytes_at_most` it fails when it would write a longer file, and says TOO_LARGE.
        """
        process = await self.start(*arguments, variables=variables)
        try:
            if file_bytes_at_most:
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    limits = file_bytes_at_most, file_bytes_at_most
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
            async with asyncio.timeout(wait_s):
                out, said = await _converse(process, stdin)
                status = await process.wait()
        except TimeoutError as error:
            raise TimedOut(
                f"git {arguments[0]} in {self._folder} took more than {wait_s:g} s and was stopped"
            ) from error
        finally:
            await end(process)
        if len(out) > OUTPUT_BYTES_AT_MOST:
            raise MilkrunError(f"git {arguments[0]} in {self._folder} printed more than 64 MiB")
        if status not in accept:
            raise _failed(self._folder, arguments, status, said)
        return Done(status, out)

    async def start(
        self, *arguments: str, variables: Mapping[str, str] | None = None, stderr: int = PIPE
    ) -> Process:
        """A git process of its own group, to talk with. The caller has to `end` it."""
        try:
            return await asyncio.create_subprocess_exec(
                "git",
                *self._prefix,
                *arguments,
                stdin=PIPE,
                stdout=PIPE,
                stderr=stderr,
                env=_environment() | dict(variables or {}),
                start_new_session=True,
                restore_signals=False,  # what exceeds a limit is an error that git cleans up after, not its death
            )
        except FileNotFoundError as error:
            raise _missing() from error


async def end(process: Process) -> None:
    """The process and its group are gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended just now
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    if process.stdin:
        process.stdin.close()


async def _converse(process: Process, stdin: bytes) -> tuple[bytes, bytes]:
    """Everything it printed and said, up to the bounds. Git has to read `stdin` before it prints much."""
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 (all three were asked for)
    try:
        if stdin:
            process.stdin.write(stdin)
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()
    except (BrokenPipeError, ConnectionResetError, RuntimeError):
        pass  # it ended without reading all (uvloop's RuntimeError says the same); its status says why
    chunks: list[bytes] = []
    size = 0
    while size <= OUTPUT_BYTES_AT_MOST and (chunk := await process.stdout.read(1 << 16)):
        chunks.append(chunk)
        size += len(chunk)
    if size > OUTPUT_BYTES_AT_MOST:
        await end(process)
    return b"".join(chunks), await process.stderr.read(_SAID_BYTES_AT_MOST)


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") and not name.startswith("CONSUL_HTTP_TOKEN")
    }
    return kept | _VARIABLES | {"SSH_ASKPASS": ""}


def require_git() -> None:
    """The program git is on this machine; else PartMissing is raised."""
    if not shutil.which("git"):
        raise _missing()


def _missing() -> PartMissing:
    return PartMissing(
        "the program git is not on this machine", remedy="install it, for example with `apt install git`"
    )


def _failed(folder: Path, arguments: tuple[str, ...], status: int, said: bytes) -> MilkrunError:
    lines = [line.rstrip(" .") for line in said.decode(errors="replace").splitlines() if line.strip()]
    why = "; ".join(lines[:3])[:500] or f"status {status}"
    remedy = ""
    if "dubious ownership" in why:
        remedy = f"if you trust the folder's owner: git config --global --add safe.directory {typed(folder)}"
    return MilkrunError(f"git {arguments[0]} in {folder} failed: {why}", remedy=remedy)
