"""How a component shows itself: a service in the catalog with a TTL check, and a report under its session.

Everything here is level-triggered: a registry that was away, restarted or emptied gets all of it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import structlog

from milkrun.consul import wire
from milkrun.consul.client import Registry
from milkrun.consul.session import TTL_S, Session
from milkrun.errors import MilkrunError, RegistryRefused

RETRY_S = 0.5


class Presence:
    """A component's registration, session and report. `run` keeps them true; `publish` changes the report.

    The session's id is kept in `state_dir`, so a restarted component goes on where it was killed and need
    not wait for its own old locks.
    """

    def __init__(
        self,
        registry: Registry,
        registration: wire.Registration,
        report_key: str,
        state_dir: Path,
        *,
        lock_delay_s: int = 0,
    ) -> None:
        self._registry = registry
        self._registration = registration
        self._report_key = report_key
        self._session_file = state_dir / "session"
        resume = ""
        with contextlib.suppress(FileNotFoundError):
            resume = self._session_file.read_text().strip()
        self.session = Session(
            registry, registration.id, behavior="delete", lock_delay_s=lock_delay_s, resume=resume
        )
        self._report = b""
        self._foreign = False
        self._changed = asyncio.Event()
        self._log = structlog.get_logger("presence")

    def publish(self, report: msgspec.Struct) -> None:
        """The report is written soon; an older one that was not written yet is dropped."""
        encoded = msgspec.json.encode(report)
        if encoded != self._report:
            self._report = encoded
            self._changed.set()

    async def run(self) -> None:
        """Never returns. Returns control to its TaskGroup only by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.session.keep())
            tasks.create_task(self._remember_session())
            tasks.create_task(self._heartbeat())
            tasks.create_task(self._write_reports())

    async def end(self) -> None:
        """The component is out of the catalog and its report is gone, if the registry can be told so."""
        # A session that lives on is resumed by the next start, which need not wait for its own locks then.
        if await self.session.end():
            self._session_file.unlink(missing_ok=True)
        try:
            await self._registry.deregister(self._registration.id)
        except MilkrunError as error:
            self._log.warning("could not deregister", id=self._registration.id, why=str(error))

    async def _remember_session(self) -> None:
        while True:
            await self.session.changed.wait()
            self.session.changed.clear()
            self._session_file.write_text(self.session.id)
            self._changed.set()

    async def _heartbeat(self) -> None:
        registered = False
        while True:
            pause = TTL_S / 5
            try:
                if not registered:
                    await self._registry.register(self._registration)
                    registered = True
                if self._registration.check:
                    await self._registry.report(self._registration.check.check_id, "passing", "alive")
            except RegistryRefused:
                registered, pause = False, RETRY_S
            except MilkrunError:
                pause = RETRY_S
            await asyncio.sleep(pause)

    async def _write_reports(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while not await self._written():
                await asyncio.sleep(RETRY_S)
            self._foreign = False

    async def _written(self) -> bool:
        if not self._report or not self.session.id:
            return True  # there is nothing to write yet, or the new session will ask for it
        try:
            if await self._registry.put(self._report_key, self._report, acquire=self.session.id):
                return True
            if not self._foreign:
                self._log.warning(
                    "somebody else writes this report; waiting for their session to end", key=self._report_key
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
