"""Histories are made: clients and watchers at work on a registry while it is killed, stopped and held."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec
from linearizability import operations as ops
from linearizability.judge import Trouble, judge
from linearizability.operations import Call
from linearizability.process import RegistryProcess
from linearizability.streams import Sight, broken, missed
from linearizability.wire import Line, NotSent, Unknown
from linearizability.workload import CALLS_EACH, CLIENTS, Workload

ANSWER_WITHIN_S = 60.0
IMPATIENT = 0.3
"""The share of calls that are given up when the registry is held; it may still do them later."""
HELD_S = 0.05
SIGHTS_AT_MOST = 2000


class Fault(StrEnum):
    KILL = "kill"
    STOP = "stop"
    HOLD = "hold"


class Case:
    """One history in the making, on a clock that all histories of a round share."""

    def __init__(self, seed: int, clock: Iterator[int]) -> None:
        self.workload = Workload(seed)
        self.calls: list[Call] = []
        self.clock = clock
        self.sights: dict[ops.Operation, list[Sight]] = {each: [] for each in self.workload.watched}
        self.last: dict[ops.Operation, ops.Read] = {}
        self.seen = asyncio.Event()
        self._unknown: list[tuple[int, int]] = []

    def enter(self, client: str, operation: ops.Operation, began: int, answer: ops.Answer) -> None:
        """The call is in the history; it has ended now."""
        if isinstance(answer, ops.Created):
            operation = msgspec.structs.replace(operation, session=answer.session)
        call = Call(client, operation, began, next(self.clock), answer)
        self.calls.append(call)
        self.workload.learn(call)

    def enter_unknown(self, client: str, operation: ops.Operation, began: int, generation: int) -> None:
        """The call is in the history; this start of the registry, at the latest, may have done it."""
        self._unknown.append((len(self.calls), generation))
        self.calls.append(Call(client, operation, began))

    def close(self, deaths: Mapping[int, int]) -> None:
        """The unknown calls end with the registry that they were for; `deaths` says when each start of it ended."""
        for place, generation in self._unknown:
            ended = deaths.get(generation, ops.NEVER)
            self.calls[place] = msgspec.structs.replace(self.calls[place], ended=ended)

    def troubles(self) -> Iterator[Trouble]:
        """All that is wrong with the history and with its watchers' streams."""
        for operation, sights in self.sights.items():
            for why in (*broken(sights), missed(sights, self.last[operation])):
                if why:
                    yield Trouble(f"watch of {operation}: {why}", ())
        yield from judge(self.calls)


class Round:
    """Histories that are made at the same time, on one registry."""

    def __init__(self, process: RegistryProcess, seeds: Sequence[int], calls_each: int) -> None:
        self._process = process
        self._calls_each = calls_each
        self._clock = itertools.count(1)
        self.cases = [Case(seed, self._clock) for seed in seeds]
        self._progress = Progress(len(seeds) * CLIENTS * calls_each)
        self._deaths: dict[int, int] = {}
        self._impatient: set[asyncio.Timeout] = set()

    async def play(self, tasks: asyncio.TaskGroup, faults: int, news_within_s: float) -> None:
        """The histories are there, and the process is up."""
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(self._watch(case, operation))
                for case in self.cases
                for operation in case.workload.watched
            ]
            async with asyncio.TaskGroup() as clients:
                clients.create_task(self._nemesis(tasks, faults_of(self.cases[0].workload.seed, faults)))
                for case in self.cases:
                    for number in range(CLIENTS):
                        clients.create_task(self._client(case, number))
            async with asyncio.TaskGroup() as looks:
                for case in self.cases:
                    looks.create_task(self._look_at_last(case, news_within_s))
            for watcher in watchers:
                watcher.cancel()
        for case in self.cases:
            case.close(self._deaths)

    async def _client(self, case: Case, number: int) -> None:
        line = Line(self._process.port)
        for place in range(self._calls_each):
            chance = case.workload.chance(number, place)
            impatient = chance.random() < IMPATIENT
            await self._call(case, f"client {number}", line, case.workload.draw(chance), impatient=impatient)
            self._progress.add()
        line.close()

    async def _call(
        self, case: Case, client: str, line: Line, operation: ops.Operation, *, impatient: bool = False
    ) -> ops.Answer | None:
        """The answer, None when nobody knows it; either way the call is in the history."""
        began = next(self._clock)
        while True:
            await self._process.up.wait()
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S) as patience:
                    if impatient:
                        self._impatient.add(patience)
                    answer = await line.ask(operation)
            except (Unknown, TimeoutError):
                case.enter_unknown(client, operation, began, self._process.generation)
                return None
            except NotSent:
                await asyncio.sleep(0.01)  # it is dying, and `up` is about to say so
            else:
                case.enter(client, operation, began, answer)
                return answer
            finally:
                self._impatient.discard(patience)

    async def _watch(self, case: Case, operation: ops.Get | ops.Tree) -> None:
        line = Line(self._process.port)
        sights = case.sights[operation]
        index = 0
        try:
            while len(sights) < SIGHTS_AT_MOST:
                await self._process.up.wait()
                began = next(self._clock)
                try:
                    read = await line.watch(operation, index)
                except (Unknown, NotSent):
                    await asyncio.sleep(0.01)
                    continue
                case.enter("watcher", operation, began, read)
                sights.append(Sight(index, read.index, read.entries))
                index = read.index
                case.seen.set()
        finally:
            line.close()

    async def _look_at_last(self, case: Case, within_s: float) -> None:
        """The last reads are in the history, and each watcher has come to them or has had its time."""
        line = Line(self._process.port)
        for operation in case.workload.last():
            answer = await self._call(case, "last look", line, operation)
            assert isinstance(answer, ops.Read), "nobody answers"
            case.last[operation] = answer
        line.close()
        try:
            async with asyncio.timeout(within_s):
                while any(missed(sights, case.last[each]) for each, sights in case.sights.items()):
                    case.seen.clear()
                    await case.seen.wait()
        except TimeoutError:
            return  # `troubles` tells which one

    async def _nemesis(self, tasks: asyncio.TaskGroup, faults: list[tuple[float, Fault]]) -> None:
        """The process dies or stops and is started again, or stands still, each at its moment."""
        for moment, fault in faults:
            await self._progress.reaches(moment)
            match fault:
                case Fault.HOLD:
                    await self._hold()
                case Fault.KILL | Fault.STOP:
                    await self._process.end(signal.SIGKILL if fault is Fault.KILL else signal.SIGTERM)
                    self._deaths[self._process.generation] = next(self._clock)
                    await self._process.start(tasks)

    async def _hold(self) -> None:
        """The registry stood still; the impatient gave up in the middle of it and called again."""
        self._process.tell(signal.SIGSTOP)
        await asyncio.sleep(HELD_S)
        for patience in self._impatient:
            patience.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(HELD_S)
        self._process.tell(signal.SIGCONT)


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
    made = Round(process, seeds, calls_each)
    await made.play(tasks, faults, news_within_s)
    return made.cases


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


def faults_of(seed: int, count: int) -> list[tuple[float, Fault]]:
    """What happens to the process in the round of this seed, and when (as a part of the round).

    Every other time it dies or stops, every other time it is held; which comes first is chance.
    """
    chance = random.Random(f"faults {seed}")
    first = chance.randrange(2) if count != 1 else 0
    ends = (Fault.KILL, Fault.KILL, Fault.STOP)
    faults = [Fault.HOLD if (place + first) % 2 else chance.choice(ends) for place in range(count)]
    return list(zip(sorted(chance.uniform(0.05, 0.95) for _ in faults), faults, strict=True))
