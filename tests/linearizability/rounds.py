"""Histories are made: clients and watchers at work on a registry while it is killed, stopped and held."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec
from linearizability import operations as ops
from linearizability.judge import Trouble, judge
from linearizability.operations import Call
from linearizability.process import RegistryProcess
from linearizability.streams import Sight, broken, missed
from linearizability.wire import Line, NotSent, Unknown
from linearizability.workload import CALLS_EACH, CLIENTS, Workload

ANSWER_WITHIN_S = 30.0
IMPATIENT_S = 0.05
HELD_S = 0.1
"""Longer than the impatient wait: their calls are given up and may be done later."""
SIGHTS_AT_MOST = 2000


class Fault(StrEnum):
    KILL = "kill"
    STOP = "stop"
    HOLD = "hold"


class Case:
    """One history in the making."""

    def __init__(self, seed: int, clock: Iterator[int]) -> None:
        self.workload = Workload(seed)
        self.calls: list[Call] = []
        self.clock = clock
        self.sights: dict[ops.Operation, list[Sight]] = {each: [] for each in self.workload.watched}
        self.last: dict[ops.Operation, ops.Read] = {}
        self.seen = asyncio.Event()

    def enter(self, client: str, operation: ops.Operation, began: int, answer: ops.Answer | None) -> None:
        """The call is in the history; it has ended now, or never."""
        if isinstance(answer, ops.Created):
            operation = msgspec.structs.replace(operation, session=answer.session)
        call = Call(client, operation, began, ops.NEVER if answer is None else next(self.clock), answer)
        self.calls.append(call)
        self.workload.learn(call)

    def troubles(self) -> Iterator[Trouble]:
        """All that is wrong with the history and with its watchers' streams."""
        for operation, sights in self.sights.items():
            for why in (*broken(sights), missed(sights, self.last[operation])):
                if why:
                    yield Trouble(f"watch of {operation}: {why}", ())
        yield from judge(self.calls)


class Progress:
    """How much of a round is over, for a nemesis that waits for its moment."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._over = 0
        self._waiting: list[tuple[float, asyncio.Event]] = []

    def add(self) -> None:
        self._over += 1
        for part, event in self._waiting:
            if self._over >= part * self._calls:
                event.set()

    async def reaches(self, part: float) -> None:
        """That part of all calls, from 0 to 1, is over."""
        if self._over >= part * self._calls:
            return
        event = asyncio.Event()
        self._waiting.append((part, event))
        await event.wait()
        self._waiting.remove((part, event))


async def play(
    process: RegistryProcess,
    tasks: asyncio.TaskGroup,
    seeds: Sequence[int],
    *,
    calls_each: int = CALLS_EACH,
    faults: int = 3,
    news_within_s: float = 10.0,
) -> list[Case]:
    """The histories of these seeds, all made at the same time, with so many faults; the process is up again."""
    clock = itertools.count(1)
    cases = [Case(seed, clock) for seed in seeds]
    progress = Progress(len(seeds) * CLIENTS * calls_each)
    async with asyncio.TaskGroup() as group:
        watchers = [
            group.create_task(_watch(process, case, operation))
            for case in cases
            for operation in case.workload.watched
        ]
        async with asyncio.TaskGroup() as clients:
            clients.create_task(_nemesis(process, tasks, progress, faults_of(seeds[0], faults)))
            for case in cases:
                for number in range(CLIENTS):
                    clients.create_task(_client(process, case, number, calls_each, progress))
        async with asyncio.TaskGroup() as looks:
            for case in cases:
                looks.create_task(_look_at_last(process, case, news_within_s))
        for watcher in watchers:
            watcher.cancel()
    return cases


async def _client(process: RegistryProcess, case: Case, number: int, calls: int, progress: Progress) -> None:
    chance = case.workload.chance(number)
    line = Line(process.port)
    for _ in range(calls):
        operation = case.workload.draw(chance)
        within_s = IMPATIENT_S if chance.random() < 0.1 else ANSWER_WITHIN_S
        began, answer = await _asked(process, line, operation, next(case.clock), within_s)
        case.enter(f"client {number}", operation, began, answer)
        progress.add()
    line.close()


async def _asked(
    process: RegistryProcess, line: Line, operation: ops.Operation, began: int, within_s: float
) -> tuple[int, ops.Answer | None]:
    while True:
        await process.up.wait()
        try:
            return began, await line.ask(operation, within_s=within_s)
        except Unknown:
            return began, None
        except NotSent:
            await asyncio.sleep(0.01)  # it is dying: `up` is about to say so, or it is held


async def _watch(process: RegistryProcess, case: Case, operation: ops.Get | ops.Tree) -> None:
    line = Line(process.port)
    sights = case.sights[operation]
    index = 0
    try:
        while len(sights) < SIGHTS_AT_MOST:
            await process.up.wait()
            began = next(case.clock)
            try:
                read = await line.watch(operation, index, within_s=600.0)
            except (Unknown, NotSent):
                await asyncio.sleep(0.01)
                continue
            case.enter("watcher", operation, began, read)
            sights.append(Sight(index, read.index, read.entries))
            index = read.index
            case.seen.set()
    finally:
        line.close()


async def _look_at_last(process: RegistryProcess, case: Case, within_s: float) -> None:
    """The last reads are in the history, and each watcher has come to them or has had its time."""
    line = Line(process.port)
    for operation in case.workload.last():
        began, answer = await _asked(process, line, operation, next(case.clock), ANSWER_WITHIN_S)
        assert isinstance(answer, ops.Read), "nobody answers"
        case.enter("last look", operation, began, answer)
        case.last[operation] = answer
    line.close()
    try:
        async with asyncio.timeout(within_s):
            while any(missed(sights, case.last[each]) for each, sights in case.sights.items()):
                case.seen.clear()
                await case.seen.wait()
    except TimeoutError:
        return  # `troubles` tells which one


def faults_of(seed: int, count: int) -> list[tuple[float, Fault]]:
    """What happens to the process in the round of this seed, and when (as a part of the round).

    Every other time it dies or stops, every other time it is held; which comes first is chance.
    """
    chance = random.Random(f"faults {seed}")
    first = chance.randrange(2) if count != 1 else 0
    ends = (Fault.KILL, Fault.KILL, Fault.STOP)
    faults = [Fault.HOLD if (place + first) % 2 else chance.choice(ends) for place in range(count)]
    return list(zip(sorted(chance.uniform(0.05, 0.95) for _ in faults), faults, strict=True))


async def _nemesis(
    process: RegistryProcess, tasks: asyncio.TaskGroup, progress: Progress, faults: list[tuple[float, Fault]]
) -> None:
    """The process dies or stops and is started again, or stands still, each at its moment."""
    for moment, fault in faults:
        await progress.reaches(moment)
        match fault:
            case Fault.HOLD:
                process.tell(signal.SIGSTOP)
                await asyncio.sleep(HELD_S)
                process.tell(signal.SIGCONT)
            case Fault.KILL | Fault.STOP:
                await process.end(signal.SIGKILL if fault is Fault.KILL else signal.SIGTERM)
                await process.start(tasks)
