"""Each commit goes to the remote as well, when it answers: no rollout waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from milkrun.errors import MilkrunError
from milkrun.rollout.git import Git

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0


class Pusher:
    """Pushes the branch to `url` (empty: nowhere) whenever woken, and again ever more slowly while that fails.
    `trouble` says why it does, and what to do.
    """

    def __init__(self, git: Git, url: str) -> None:
        self._git, self._url = git, url
        self._wake = asyncio.Event()
        self.trouble = ""

    def wake(self) -> None:
        """There is something to push."""
        self._wake.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Never returns. `changed` is called when the trouble is another one."""
        failures = 0
        while self._url:
            await self._woken(failures)
            self._wake.clear()
            before = self.trouble
            try:
                await self._git.push(self._url)
                self.trouble, failures = "", 0
            except MilkrunError as error:
                self.trouble = f"commits are not pushed: {error.message} ({error.remedy})"
                failures += 1
            if self.trouble != before:
                structlog.get_logger("rollouts").warning(self.trouble or "commits are pushed again")
                changed()

    async def _woken(self, failures: int) -> None:
        """There is a new commit; or it is time to try the last ones once more."""
        pause_s: float | None = None
        if failures:
            pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures, 10)) * (0.5 + random.random() / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
