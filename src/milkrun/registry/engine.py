"""The machine, its disk and its watchers: the one place where a change becomes durable and then visible.

All commands of one turn of the event loop are applied and committed in one SQLite transaction, synchronously:
nobody is answered, no watcher wakes and no read runs between the change in memory and the sync of the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from milkrun.errors import MilkrunError, StorageFailed
from milkrun.registry import commands
from milkrun.registry.access.authority import ALL, Authority, Gate
from milkrun.registry.access.permits import guard
from milkrun.registry.ledger import Row
from milkrun.registry.nouns import Node
from milkrun.registry.parked import Parked
from milkrun.registry.refusal import Refused
from milkrun.registry.replies import Replies
from milkrun.registry.state import Machine
from milkrun.registry.storage import DiskFull, Storage

IDLE_S = 60.0
RETRY_S = 1.0
PROBE_BYTES = 16 * 1024
"""More than what a write needs besides its own bytes."""
_encode = msgspec.msgpack.Encoder().encode

_Queue = list[tuple[commands.Command, Authority, asyncio.Future[Any]]]


class Engine:
    """One registry's state. `submit` changes it; reading `machine` is safe between awaits."""

    def __init__(
        self, storage: Storage, node: Node, parked: Parked | None = None, gate: Gate | None = None
    ) -> None:
        self._storage = storage
        self.own = node
        self.gate = gate or Gate()
        self._queue: _Queue = []
        self._log = structlog.get_logger("registry")
        self._timers_moved = asyncio.Event()
        self._full = False
        self.parked = Parked() if parked is None else parked  # an empty one counts as false
        self.listeners: list[Callable[[set[str]], None]] = []
        """Parts of the registry itself: each is called with the topics that a commit touched."""
        self.machine = self._restored()
        self.replies = Replies()
        self.failed: asyncio.Future[StorageFailed] = asyncio.get_running_loop().create_future()
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when a client that may said that this registry is to end."""

    async def submit(self, command: commands.Command, who: Authority) -> Any:
        """The command's result, once it is durable. Raises Refused for a no, and DiskFull.

        What `who` may do is looked at in the moment of the change: nothing can change in between.
        """
        if self.failed.done():
            raise self.failed.result()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._queue:
            loop.call_soon(self._commit)
        self._queue.append((command, who, answer))
        outcome = await answer
        if isinstance(outcome, MilkrunError):
            raise outcome
        return outcome

    async def run_timers(self) -> None:
        """Never returns: what is due is done, when it is due."""
        while True:
            due = self.machine.deadlines.next()
            pause = IDLE_S if due is None else max(0.0, min(IDLE_S, due - time.monotonic()))
            self._timers_moved.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._timers_moved.wait()
            except TimeoutError:
                pass
            due = self.machine.deadlines.next()
            if due is not None and due <= time.monotonic():
                try:
                    await self.submit(commands.Expire(), ALL)
                except DiskFull:
                    await asyncio.sleep(RETRY_S)

    def _commit(self) -> None:
        queue, self._queue = self._queue, []
        if self._full and not self._has_room(queue):
            return
        earliest = self.machine.deadlines.next()
        settled = False
        try:
            outcomes = self._apply(queue)
            rows, touched, keys = self.machine.ledger.take()
            if rows:
                self._storage.commit(rows, self.machine.ledger.index)
            settled = True
        except DiskFull as error:
            settled = True
            self._refuse(queue, error)
        except StorageFailed as error:
            settled = True
            self._fail(queue, error)
        else:
            self._publish(rows, touched, keys)
            _answer(queue, outcomes)
        finally:
            # A fault of ours, which the loop reports: what it left half done must not be seen.
            if not settled:
                self._refuse(queue, MilkrunError("the registry made a mistake: nothing was written"))
        if self.machine.deadlines.next() != earliest:
            self._timers_moved.set()

    def _has_room(self, queue: _Queue) -> bool:
        """Whether a disk that was full takes these now. If not they are refused before they change anything: to
        read the whole state again for each of them would leave no time for the reads that go on.
        """
        try:
            self._storage.probe(PROBE_BYTES + sum(len(_encode(command)) for command, _, _ in queue))
        except DiskFull as error:
            _answer(queue, [error] * len(queue))
        except StorageFailed as error:
            self._fail(queue, error)
        else:
            return True
        return False

    def _apply(self, queue: _Queue) -> list[Any]:
        now = time.monotonic()
        outcomes: list[Any] = []
        for command, who, _ in queue:
            self.machine.ledger.begin()
            try:
                no = guard(who, command, self.machine)
                outcomes.append(no or self.machine.apply(command, now))
            except Refused as refusal:
                if self.machine.ledger.changed:
                    raise RuntimeError(
                        f"{command!r:.200} was refused when it had changed something"
                    ) from refusal
                outcomes.append(refusal)
        return outcomes

    def _publish(self, rows: dict[Row, bytes | None], touched: set[str], keys: list[str]) -> None:
        if rows and self._full:
            self._full = False
            self._log.info("the disk has room again: writes are taken")
        self.replies.forget(touched)
        self.parked.wake(touched, keys)
        for listener in self.listeners:
            listener(touched)

    def _refuse(self, queue: _Queue, error: MilkrunError) -> None:
        """Nothing was written, so memory goes back to what the disk says."""
        if isinstance(error, DiskFull) and not self._full:
            self._full = True
            self._log.error(
                "the disk is full: writes are refused, reads go on", why=error.message, next=error.remedy
            )
        self.machine = self._restored()
        self.replies = Replies()
        _answer(queue, [error] * len(queue))

    def _fail(self, queue: _Queue, error: StorageFailed) -> None:
        """Memory is ahead of a disk that cannot be trusted: nothing is answered any more."""
        self._log.critical("the disk failed; the registry ends", why=error.message, next=error.remedy)
        self.failed.set_result(error)
        _answer(queue, [error] * len(queue))

    def _restored(self) -> Machine:
        storage = self._storage
        return Machine.restore(self.own.node, storage.index, storage.rows(), time.monotonic())

    async def announce(self) -> None:
        """This registry's own node is in the catalog."""
        await self.submit(commands.Announce(self.own), ALL)


def _answer(queue: _Queue, outcomes: list[Any]) -> None:
    for (_, _, answer), outcome in zip(queue, outcomes, strict=True):
        if not answer.done():
            answer.set_result(outcome)
