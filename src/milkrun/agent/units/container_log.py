"""A container's output goes on into the instance's log file, from where an earlier agent left off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

from milkrun.agent.units import logfile
from milkrun.agent.units.docker import Engine, EngineRefused
from milkrun.agent.units.log_frames import Unframed, after
from milkrun.errors import MilkrunError

RETRY_S = 1.0
DRAIN_S = 2.0


class ContainerLog:
    """Beside the log file stands how far it was read: `<log>.read`. `fresh`: the container was just started."""

    def __init__(
        self, engine: Engine, container: str, log: Path, exited: asyncio.Event, *, fresh: bool
    ) -> None:
        self._engine = engine
        self._container = container
        self._log = log
        self._mark = log.with_name(f"{log.name}.read")
        self._exited = exited
        self._whole = asyncio.Event()
        self._last = "" if fresh else self._read_mark()

    async def follow(self, told: Callable[[str], None]) -> None:
        """Returns when the container has ended and all is written. `told` hears why it is not, or an empty text.

        What it wrote in the agent's last moment may stand there twice, and is not lost.
        """
        # At least once: what ends at once has said the more about why.
        while True:
            try:
                await self._copy()
                told("")
            except EngineRefused as error:
                if error.status == 404:
                    break
                told(f"its log cannot be followed: {error.message}")
            except MilkrunError:
                pass  # who watches the container says that the engine is away
            except (OSError, ValueError) as error:
                told(f"its log cannot be kept: {getattr(error, 'strerror', None) or error}")
            # The engine ends the answer when the container has ended, or when it ends itself.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S * (0.5 + random.random() / 2)):
                    await self._exited.wait()
            if self._exited.is_set():
                break
        self._whole.set()

    async def drained(self) -> None:
        """All is written that the container wrote; or it took too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._whole.wait()

    def forget(self) -> None:
        """Nothing but the log itself is left."""
        self._mark.unlink(missing_ok=True)

    async def _copy(self) -> None:
        frames = Unframed()
        async with contextlib.aclosing(self._engine.log(self._container, after(self._last))) as blocks:
            async for block in blocks:
                if text := frames.take(block):
                    with logfile.opened(self._log) as file:
                        _write(file, text)
                if frames.last and frames.last != self._last:
                    self._last = frames.last
                    self._mark.write_text(self._last)

    def _read_mark(self) -> str:
        try:
            return self._mark.read_text()
        except (OSError, UnicodeDecodeError):
            return ""


def _write(file: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(file, rest) :]
