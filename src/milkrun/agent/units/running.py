"""What a unit needs of whatever its instance is: one shape for a process and for a container."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from milkrun.agent.units.program import Place
from milkrun.host.process import Identity
from milkrun.settings.service import ServiceSettings


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to run: an instance of these settings in this place, with its output in `log`."""

    settings: ServiceSettings
    place: Place
    log: Path


class Watcher(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told: `on_exit` once, how it ended; `on_news` when `trouble` changed. It works in `tasks`."""

    on_exit: Callable[[str], None]
    on_news: Callable[[], None]
    tasks: asyncio.TaskGroup


class Running(Protocol):
    """An instance that runs, or did until just now."""

    @property
    def exited(self) -> asyncio.Event:
        """Set when it has ended."""

    @property
    def identity(self) -> Identity | None:
        """Which process it is, if that tells all about it."""

    @property
    def pid(self) -> int:
        """Its first process on this host; 0 when not known."""

    @property
    def trouble(self) -> str:
        """Why nothing is known of it just now; empty when all is."""

    async def stop(self, limit_s: float) -> bool:
        """It has ended: by itself in time (True), or killed (False). MilkrunError when it cannot be stopped."""

    async def clear(self) -> None:
        """Nothing is left of it, which has ended: its name and port can be used again."""

    async def stranger(self, port: int) -> bool:
        """Whether another program listens on its port."""

    def leave(self) -> None:
        """It is no longer watched, and goes on running."""


class Runner(Protocol):
    """One way to run instances on this host."""

    async def start(self, order: Order, watcher: Watcher) -> Running:
        """It runs, also when this agent ends; MilkrunError if it cannot. Nothing is awaited once it is watched."""

    async def adopt(self, order: Order, known: Identity | None, watcher: Watcher) -> Running | None:
        """What an earlier agent started for the order, watched; None when it no longer runs and nothing is left."""
