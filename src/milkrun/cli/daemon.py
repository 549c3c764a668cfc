"""Runs one of Milkrun's parts as a process: its log, its signals, and the lock that keeps it the only one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
import uvloop

from milkrun.errors import Conflict
from milkrun.up.lock import DAEMON, only_one
from milkrun.up.process import LISTENED_TO


def run(part: str, state_dir: Path, body: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """`body` has run until it ended or a signal told it to.

    SIGTERM and SIGINT cancel it: a clean stop. SIGUSR2 sets its event: it should leave to the next one what
    it runs, and return. A second `run` of the same part in the same `state_dir` raises Conflict.
    """
    log_to_stderr(part)
    with only_one(state_dir / DAEMON, lambda pid: _refusal(part, state_dir, pid)):
        uvloop.run(_signalled(part, body))


def _refusal(part: str, state_dir: Path, pid: str) -> Conflict:
    return Conflict(
        f"another {part} (pid {pid}) runs in {state_dir} already",
        remedy=f"use that one, stop it with `milkrun down` or `kill {pid}`, or name another state folder",
    )


async def _signalled(part: str, body: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    log = structlog.get_logger(part)
    loop = asyncio.get_running_loop()
    handover = asyncio.Event()
    told: list[str] = []
    running: list[asyncio.Task[None]] = []

    def stop(name: str) -> None:
        if not told:
            log.info("stops: it was told to", signal=name)
            running[0].cancel()
        told.append(name)

    def hand_over() -> None:
        log.info("hands over to the next one", signal="SIGUSR2")
        handover.set()

    # The loop calls handlers between its turns: the task is there before the first one can be.
    loop.add_signal_handler(signal.SIGTERM, stop, "SIGTERM")
    loop.add_signal_handler(signal.SIGINT, stop, "SIGINT")
    loop.add_signal_handler(signal.SIGUSR2, hand_over)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LISTENED_TO)
    log.info("starts", pid=os.getpid())
    async with asyncio.TaskGroup() as tasks:
        running.append(tasks.create_task(body(handover)))
    log.info("ended")


async def ends_at_handover(handover: asyncio.Event, body: Coroutine[Any, Any, None]) -> None:
    """`body` has run; a hand over stops it, as it leaves nothing that could be handed over."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(body)
        waiting = tasks.create_task(_cancel_at(handover, running))
        running.add_done_callback(lambda _: waiting.cancel())


async def _cancel_at(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    await event.wait()
    task.cancel()


def log_to_stderr(part: str) -> None:
    """Every log line is one line on stderr: time, level, event, key=value."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format=f"%(asctime)s %(levelname)s {part}: %(message)s"
    )


def _line(_: object, __: str, fields: structlog.typing.EventDict) -> str:
    """`time level event key=value ...`; text with spaces or quotes is quoted, and a line stays one line."""
    head = f"{fields.pop('timestamp')} {fields.pop('level'):7} {fields.pop('event')}"
    words = [f"{key}={_quoted(value)}" for key, value in fields.items()]
    return " ".join([head.replace("\n", "\\n"), *words])


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not any(char in text for char in " \"'=")
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def this_host() -> str:
    """This machine's name as a service name can be: lower case, digits and inner hyphens."""
    name = socket.gethostname().partition(".")[0].lower()
    plain = "".join(char if char.isascii() and char.isalnum() else "-" for char in name).strip("-")
    return plain[:40].strip("-") or "host"
