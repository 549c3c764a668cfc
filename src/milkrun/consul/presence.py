"""How a component shows itself: a service in the catalog with a TTL check, and reports under its session.

Everything here is level-triggered: a registry that was away, restarted or emptied gets all of it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from milkrun.consul import wire
from milkrun.consul.client import Registry
from milkrun.consul.session import TTL_S, Session
from milkrun.errors import MilkrunError, RegistryRefused

RETRY_S = 0.5
REWRITE_S = 60.0


class Presence:
    """A component's registration, session and reports. `run` keeps them true; `publish` changes a report.

    `report_keys` are those that it will publish; `reported` says that each of them was written once.

    The session's id is kept in `state_dir`, so a restarted component goes on where it was killed and need
    not wait for its own old locks.
    """

    def __init__(
        self,
        registry: Registry,
        registration: wire.Registration,
        report_keys: Iterable[str],
        state_dir: Path,
        *,
        lock_delay_s: int = 0,
    ) -> None:
        self._registry = registry
        self._registration = registration
        self._report_keys = frozenset(report_keys)
        self._session_file = state_dir / "session"
        resume = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):  # then it is a new session
            resume = self._session_file.read_text().strip()
        self.session = Session(
            registry, registration.id, behavior="delete", lock_delay_s=lock_delay_s, resume=resume
        )
        self._reports: dict[str, bytes] = {}
        self._unwritten: set[str] = set()
        self._written: set[str] = set()
        self._foreign = False
        self._changed = asyncio.Event()
        self.reported = asyncio.Event()
        self._log = structlog.get_logger("presence")

    @property
    def place(self) -> tuple[str, frozenset[str]]:
        """The component's id in the catalog, and its reports' keys."""
        return self._registration.id, self._report_keys

    def publish(self, key: str, report: msgspec.Struct) -> None:
        """The report is written soon; an older one that was not written yet is dropped."""
        encoded = msgspec.json.encode(report)
        if encoded != self._reports.get(key):
            self._reports[key] = encoded
            self._unwritten.add(key)
            self._changed.set()

    def move(self, address: str) -> None:
        """The catalog has the component at this address with its next sign of life."""
        self._registration.address = address

    async def run(self) -> None:
        """Never returns. Returns control to its TaskGroup only by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.session.keep())
            tasks.create_task(self._remember_session())
            tasks.create_task(self._heartbeat())
            tasks.create_task(self._write_reports())

    async def move_to(self, successor: Presence) -> None:
        """This one is out of the catalog and its reports are gone, but not before its successor in the same
        `state_dir` has reported: nobody who waits for reports may find none in between.
        """
        await successor.reported.wait()
        while True:
            try:
                for key in sorted(self._report_keys - successor._report_keys):
                    await self._registry.delete(key)
                if self._registration.id != successor._registration.id:
                    await self._registry.deregister(self._registration.id)
            except MilkrunError:
                await asyncio.sleep(_jittered(RETRY_S))
            else:
                return

    async def end(self) -> None:
        """The component is out of the catalog and its reports are gone, if the registry can be told so."""
        for key in sorted(self._report_keys):
            await self._withdraw(key)
        # A session that lives on is resumed by the next start, which need not wait for its own locks then.
        if await self.session.end():
            self._session_file.unlink(missing_ok=True)
        try:
            await self._registry.deregister(self._registration.id)
        except MilkrunError as error:
            self._log.warning("could not deregister", id=self._registration.id, why=str(error))

    async def _withdraw(self, key: str) -> None:
        """The report is gone, not torn away with the session: a lock delay would keep the next start silent."""
        try:
            pair = await self._registry.get(key)
            if pair is not None and pair.session and pair.session == self.session.id:
                await self._registry.delete(key, cas=pair.modify_index)
        except MilkrunError:
            return  # the session's own end says that the registry is away

    async def _remember_session(self) -> None:
        while True:
            await self.session.changed.wait()
            self.session.changed.clear()
            self._remember(self.session.id)
            self._unwritten.update(self._reports)
            self._changed.set()

    def _remember(self, session: str) -> None:
        try:
            descriptor = os.open(
                self._session_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
            )
            with os.fdopen(descriptor, "w") as file:
                file.write(session)
        except OSError as error:
            self._log.warning("the session is not kept for a restart", why=str(error))

    async def _heartbeat(self) -> None:
        registered: str | None = None
        while True:
            pause = TTL_S / 5
            try:
                address = self._registration.address
                if registered != address:
                    await self._registry.register(self._registration)
                    registered = address
                if self._registration.check:
                    await self._registry.report(self._registration.check.check_id, "passing", "alive")
            except RegistryRefused:
                registered, pause = None, RETRY_S
            except MilkrunError:
                pause = RETRY_S
            await asyncio.sleep(_jittered(pause))

    async def _write_reports(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_jittered(REWRITE_S)):
                    await self._changed.wait()
            except TimeoutError:  # then they are written again: somebody may have deleted them
                self._unwritten.update(self._reports)
            self._changed.clear()
            while not await self._write():
                await asyncio.sleep(_jittered(RETRY_S))
            self._foreign = False

    async def _write(self) -> bool:
        """Whether every report that there is to write was written; one that cannot be holds no other up."""
        if not self.session.id:
            return True  # the new session will ask for it
        for key in sorted(self._unwritten):
            self._unwritten.discard(key)
            if not await self._put(key):
                self._unwritten.add(key)
        if self._written >= self._report_keys:
            self.reported.set()
        return not self._unwritten

    async def _put(self, key: str) -> bool:
        try:
            if await self._registry.put(key, self._reports[key], acquire=self.session.id):
                self._written.add(key)
                return True
            if not self._foreign:
                self._log.warning(
                    "somebody else writes this report; waiting for their session to end: if that is another one of"
                    " its kind, give this one another name with --host",
                    key=key,
                )
            self._foreign = True
        except MilkrunError:
            pass  # the session's own loop says that the registry is away
        return False


def component(
    name: str, host: str, address: str, port: int, meta: dict[str, str] | None = None
) -> wire.Registration:
    """The registration of one of Milkrun's own parts, alive while it reports within the TTL."""
    service_id = f"{name}-{host}" + (f"-{port}" if port else "")
    check = wire.TtlCheck(check_id=f"service:{service_id}", name="alive", ttl=f"{TTL_S}s")
    return wire.Registration(
        id=service_id, name=name, address=address, port=port, meta=meta or {}, check=check
    )


def _jittered(pause_s: float) -> float:
    return pause_s * (0.75 + random.random() / 2)
