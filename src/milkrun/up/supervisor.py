"""Starts the parts, starts again one that dies, and stops them in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable

from milkrun.agent.units import logfile
from milkrun.agent.units.program import Program
from milkrun.errors import MilkrunError
from milkrun.host.process import Identity, identity
from milkrun.settings.environment import Environment
from milkrun.settings.folder import Folder
from milkrun.up import leftovers
from milkrun.up.backoff import Backoff
from milkrun.up.parts import Part, stop_order
from milkrun.up.process import PartProcess
from milkrun.up.record import Known, Record, save
from milkrun.up.stopping import stop

ROTATE_S = 5.0
LAST_WORDS_AT_MOST = 300
_TRUST = frozenset(
    ("CONSUL_CACERT", "CONSUL_CAPATH", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME")
)


class Supervisor:
    """The parts of one environment. `say` gets a line for each thing that a person may want to know."""

    def __init__(
        self, folder: Folder, environment: Environment, parts: list[Part], say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self._environment = environment
        self._parts = parts
        self._say = say
        self._running: dict[str, PartProcess] = {}
        self._ready = False
        self._outcome: dict[str, str] = {}
        self._unsaved = ""
        self.stopping = asyncio.Event()
        self.hard = asyncio.Event()

    def told_to_stop(self) -> None:
        """The first time it asks for a clean stop, the second time for a hard one."""
        if self.stopping.is_set():
            self._say("kills what is left, at once")
            self.hard.set()
        else:
            self._say("stops; once more kills everything at once")
            self.stopping.set()

    def ready(self) -> None:
        """up.json says that everything is up."""
        self._ready = True
        self._save()

    async def keep(self, part: Part) -> None:
        """The part runs, again after each death, until everything stops."""
        backoff = Backoff()
        while not self.stopping.is_set():
            start = time.monotonic()
            outcome = await self._life(part)
            if self.stopping.is_set():
                return
            backoff = backoff.died(time.monotonic() - start)
            pause_s = backoff.pause_s(random.random())
            self._say(f"{part.name}: {outcome}; starts again in {pause_s:.1f} s{self._last_words(part)}")
            await _unless(self.stopping, pause_s)

    async def rotate_logs(self) -> None:
        """Never returns: a log over its limit is put aside."""
        while True:
            await asyncio.sleep(ROTATE_S)
            for path in self.folder.logs.glob("*.log"):
                logfile.rotate(path)

    async def stop(self) -> None:
        """No part runs, and nothing that one of them started."""
        self.stopping.set()
        running = [
            (part, process)
            for part in self._parts
            if (process := self._running.get(part.name)) and not process.exited.is_set()
        ]
        order = stop_order([part for part, _ in running])
        await stop(
            self.folder,
            [[(part, self._running[part.name]) for part in group] for group in order],
            self._say,
            self.hard,
        )

    async def _life(self, part: Part) -> str:
        """How the part's process ended, after it did."""
        program = Program(
            arguments=[sys.executable, "-m", "milkrun", "--env", str(self.folder.path), *part.arguments],
            environment=self._variables(),
            folder=self.folder.path,
            log=self.folder.logs / f"{part.name}.log",
        )
        try:
            process = PartProcess.start(program, lambda outcome: self._outcome.update({part.name: outcome}))
        except MilkrunError as error:
            return error.message
        self._running[part.name] = process
        self._save()
        await process.exited.wait()
        if not self.stopping.is_set():
            del self._running[part.name]
        return self._outcome.get(part.name, "ended")

    def _variables(self) -> dict[str, str]:
        """The caller's variables without Consul's: the parts talk to this environment's own registry. Whom they trust
        there is the caller's to say.
        """
        trust = _TRUST if self._environment.registry.tls_cert else frozenset()
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CONSUL_") or name in trust
        }
        if self._environment.registry.acl != "open":
            own["CONSUL_HTTP_TOKEN_FILE"] = str(self.folder.token_file)
        return own

    def _last_words(self, part: Part) -> str:
        """What the part itself said before it ended, when it said why."""
        try:
            text = (self.folder.logs / f"{part.name}.log").read_bytes()[-4096:].decode(errors="replace")
        except OSError:
            return ""
        said = [line for line in text.splitlines()[-3:] if line.startswith("milkrun: ")]
        return f" ({said[-1].removeprefix('milkrun: ')[:LAST_WORDS_AT_MOST]})" if said else ""

    def _save(self) -> None:
        me = identity(os.getpid())
        if me is None:
            raise MilkrunError("/proc does not show this process", remedy="mount /proc")
        parts = {name: Known(identity=process.identity) for name, process in self._running.items()}
        record = Record(up=Known(identity=me), environment=self._environment, ready=self._ready, parts=parts)
        try:
            save(self.folder, record)
        except MilkrunError as error:
            # A full disk is no reason to stop what serves: `down` finds this process by its lock as well.
            if error.message != self._unsaved:
                self._say(f"{error.message}; goes on without it ({error.remedy})")
            self._unsaved = error.message
        else:
            self._unsaved = ""


async def take_over(found: dict[str, Identity], wanted: set[str], limit_s: float) -> None:
    """The parts of a former `up` have gone and left what they ran: instances and HAProxy go on.

    One that is not `wanted` any more (a router that git dropped) stops what it ran.
    """
    processes = []
    for name, known in found.items():
        if process := PartProcess.adopt(known, lambda _: None):
            process.tell(signal.SIGUSR2 if name in wanted else signal.SIGTERM)
            processes.append(process)
    await asyncio.gather(*(process.ends_within(limit_s) for process in processes))
    for process in processes:
        process.tell(signal.SIGKILL)  # one that does not answer: what it ran is adopted all the same
    await asyncio.gather(*(process.ends_within(limit_s) for process in processes))


def leftover_pids(folder: Folder) -> set[int]:
    """The pids of this environment's own processes from before."""
    return {known.pid for known in leftovers.parts(folder).values()} | {
        child.identity.pid for child in leftovers.children(folder)
    }


async def _unless(event: asyncio.Event, limit_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), limit_s)
    except TimeoutError:
        return
