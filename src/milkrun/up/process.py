"""A part as a process: its own child, or one that an `up` before this one started."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Self

from milkrun.agent.units.process import Process
from milkrun.agent.units.program import Program

LISTENED_TO = (signal.SIGTERM, signal.SIGUSR2)
"""What a part does something about. Without its ear they would end it, with all that it had to stop left running."""


class PartProcess(Process):
    """A process that is told things by signal, and only it: what it runs has a group of its own."""

    @classmethod
    def start(cls, program: Program, on_exit: Callable[[str], None]) -> Self:
        """The part runs. A signal that comes before it listens to signals waits until it does."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED_TO)
        try:
            return super().start(program, on_exit)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def tell(self, number: signal.Signals) -> None:
        """The signal is sent, if the process still runs."""
        if not self.exited.is_set() and self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return  # it ended this moment; the pidfd says so next

    async def ends_within(self, limit_s: float) -> bool:
        """Whether the process has ended, after `limit_s` seconds at most."""
        return await self._exits_within(limit_s)
