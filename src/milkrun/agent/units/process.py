"""A running process, its own child or one that an earlier agent started: both are watched by a pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from typing import Self

import structlog

from milkrun.agent.units import logfile
from milkrun.agent.units.listening import foreign
from milkrun.agent.units.marked import marked
from milkrun.agent.units.program import Program
from milkrun.errors import MilkrunError, PartMissing
from milkrun.host.process import Identity, identity

KILLED_AWAIT_S = 5.0


class Process:
    """One process, with the group it leads. `on_exit` is told once, at once, how it ended; `ends_by` asks it to.

    `family` gives the pids of it and its children. Of its `trouble` there is none: a pidfd always knows.
    """

    trouble = ""

    def __init__(self, known: Identity, pidfd: int, on_exit: Callable[[str], None]) -> None:
        self.identity = known
        self.pid = known.pid
        self.exited = asyncio.Event()
        self._on_exit = on_exit
        self.ends_by = signal.SIGTERM
        self.family: Callable[[], Iterable[int]] = lambda: [known.pid]
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._ended)

    @classmethod
    def start(cls, program: Program, on_exit: Callable[[str], None]) -> Self:
        """The program runs, in a session of its own that outlives this agent; MilkrunError if it cannot."""
        try:
            with logfile.opened(program.log) as log:
                child = subprocess.Popen(
                    program.arguments,
                    env=program.environment,
                    cwd=program.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise _not_started(program, error) from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise MilkrunError(
                f"cannot start {program.arguments[0]}: {why.lower()}",
                remedy="see whether this host has space, memory and processes left (df, free, ulimit -a)",
            ) from error
        # From here on the pidfd watches and reaps it. Popen would do so too if it did not think it had ended.
        child.returncode = 0
        pidfd = os.pidfd_open(child.pid)
        known = identity(child.pid) or Identity(pid=child.pid, ticks=0, boot="")
        return cls(known, pidfd, on_exit)

    @classmethod
    def adopt(cls, known: Identity, on_exit: Callable[[str], None]) -> Self | None:
        """The process with this identity, watched; None when it no longer runs."""
        try:
            pidfd = os.pidfd_open(known.pid)
        except OSError:
            return None
        # Compared after the open: what the pidfd means cannot change any more.
        if identity(known.pid) != known:
            os.close(pidfd)
            return None
        return cls(known, pidfd, on_exit)

    async def stop(self, limit_s: float) -> bool:
        """The process has ended: by itself within `limit_s` of being asked to (True), or by SIGKILL (False)."""
        self._signal(self.ends_by)
        if await self._exits_within(limit_s):
            return True
        self._signal(signal.SIGKILL)
        if not await self._exits_within(KILLED_AWAIT_S):
            raise MilkrunError(
                f"process {self.identity.pid} does not end, not even by SIGKILL",
                remedy=f"see what it waits for: cat /proc/{self.identity.pid}/stack",
            )
        return False

    async def clear(self) -> None:
        """Nothing is left of it: whoever started it has killed its remains at its exit."""

    async def stranger(self, port: int) -> bool:
        """Whether another program listens on the port."""
        return foreign(port, self.family())

    def leave(self) -> None:
        """The process is no longer watched, and goes on running."""
        if not self.exited.is_set() and self._pidfd >= 0:
            self._close()

    async def _exits_within(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.exited.wait()
        return self.exited.is_set()

    def _signal(self, number: signal.Signals) -> None:
        if self.exited.is_set():
            return
        try:
            os.killpg(self.identity.pid, number)
        except ProcessLookupError:
            pass  # it ended this moment; the pidfd says so next
        except PermissionError as error:
            structlog.get_logger("process").error(
                "a process may not be signalled", pid=self.identity.pid, signal=number.name, why=str(error)
            )

    def _ended(self) -> None:
        outcome = _outcome(self._pidfd)
        self._close()
        self.exited.set()
        self._on_exit(outcome)

    def _close(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1


def _not_started(program: Program, error: OSError) -> MilkrunError:
    """What is missing: the program, the folder that it should run in, or a place for its log."""
    name = program.arguments[0]
    if str(error.filename) == name:
        why = "it may not be run" if isinstance(error, PermissionError) else "there is no such program here"
        return PartMissing(
            f"cannot start {name}: {why}",
            remedy="install it on this host, or correct the service's `command` and commit",
        )
    why = (error.strerror or "it cannot be used").lower()
    return MilkrunError(
        f"cannot start {name}: {error.filename}: {why}", remedy=f"see what {error.filename} is, and whose"
    )


def _outcome(pidfd: int) -> str:
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        ended = None
    if ended is None:
        return "process ended (its status is not known: an earlier agent started it)"
    if ended.si_code == os.CLD_EXITED:
        return f"process exited with status {ended.si_status}"
    return f"killed by signal {ended.si_status}"


def kill_remains(instance: str, state: str) -> list[int]:
    """What an ended instance left behind has been killed: its children would keep its port. Their pids."""
    killed = []
    for found in marked(state):
        if found.instance == instance:
            kill(found.identity)
            killed.append(found.identity.pid)
    return killed


def kill(known: Identity) -> None:
    """Exactly this process has been sent SIGKILL, if it still runs."""
    try:
        pidfd = os.pidfd_open(known.pid)
    except OSError:
        return
    try:
        if identity(known.pid) == known:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        pass  # it ended meanwhile
    finally:
        os.close(pidfd)
