"""Instances as processes of this host."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import structlog

from milkrun.agent.units import secret_files
from milkrun.agent.units.marked import marked
from milkrun.agent.units.process import Process, kill_remains
from milkrun.agent.units.program import Program, arguments, environment
from milkrun.agent.units.running import Order, Watcher
from milkrun.host.process import Identity
from milkrun.model import InstanceId


class Processes:
    """`folder` is where they run, `state` the agent's folder, by which they are known as its own."""

    def __init__(self, folder: Path, state: Path, registry: str) -> None:
        self._folder = folder
        self._state = state
        self._registry = registry

    async def start(self, order: Order, watcher: Watcher) -> Process:
        """As `Runner.start`."""
        settings = order.settings
        secrets = secret_files.resolved(settings.secrets, self._folder)
        program = Program(
            arguments=arguments(settings.command, order.place),
            environment=environment(
                os.environ, settings, order.place, secrets, registry=self._registry, state=self._state
            ),
            folder=self._folder,
            log=order.log,
        )
        return self._known(order, Process.start(program, self._exit(order.place.instance, watcher)))

    async def adopt(self, order: Order, known: Identity | None, watcher: Watcher) -> Process | None:
        """As `Runner.adopt`."""
        instance = order.place.instance
        process = Process.adopt(known, self._exit(instance, watcher)) if known else None
        if process is None:
            kill_remains(instance, str(self._state))
            return None
        return self._known(order, process)

    def _known(self, order: Order, process: Process) -> Process:
        process.ends_by = signal.Signals[f"SIG{order.settings.stop.signal or 'TERM'}"]
        process.family = lambda: [
            one.identity.pid for one in marked(str(self._state)) if one.instance == order.place.instance
        ]
        return process

    def _exit(self, instance: InstanceId, watcher: Watcher) -> Callable[[str], None]:
        def ended(outcome: str) -> None:
            if killed := kill_remains(instance, str(self._state)):
                log = structlog.get_logger("unit").bind(instance=instance)
                log.warning("the instance left processes behind; they were killed", pids=killed)
            watcher.on_exit(outcome)

        return ended
