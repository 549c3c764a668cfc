"""A session kept alive: what is written under it vanishes with its holder."""

from __future__ import annotations

import asyncio
import random
import re
import time

import structlog

from milkrun.consul.client import Registry
from milkrun.errors import MilkrunError

TTL_S = 15

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Session:
    """A registry session that `keep` renews. `id` is empty while there is none.

    `behavior` says what becomes of the keys it holds when it dies: "delete" or "release".
    """

    def __init__(
        self, registry: Registry, name: str, *, behavior: str, lock_delay_s: int = 0, resume: str = ""
    ) -> None:
        self._registry = registry
        self._name = name
        self._behavior = behavior
        self._lock_delay_s = lock_delay_s
        self._renewed = 0.0
        self.id = (
            resume if _ID.fullmatch(resume) else ""
        )  # a torn file must not stand between us and a session
        self.changed = asyncio.Event()

    async def ensure(self) -> str:
        """The id of a live session: the old one renewed, or a new one. Raises when the registry is away."""
        asked = time.monotonic()  # its TTL runs from then at the earliest, not from when the answer came
        if self.id and await self._registry.renew_session(self.id):
            self._renewed = asked
            return self.id
        asked = time.monotonic()
        self.id = await self._registry.create_session(
            self._name, ttl_s=TTL_S, behavior=self._behavior, lock_delay_s=self._lock_delay_s
        )
        self._renewed = asked
        self.changed.set()
        return self.id

    @property
    def safe(self) -> bool:
        """Whether its holder may still act on what it locked: renewed within the last TTL."""
        return bool(self.id) and time.monotonic() - self._renewed < TTL_S

    async def keep(self) -> None:
        """Never returns: renews at a third of the TTL, and makes a new session when the old one is gone."""
        log = structlog.get_logger("session")
        failing = False
        while True:
            try:
                await self.ensure()
                if failing:
                    log.info("the session lives again", name=self._name)
                failing = False
            except MilkrunError as error:
                if not failing:
                    log.warning("the session cannot be renewed", name=self._name, why=str(error))
                failing = True
            pause = 0.5 if failing else TTL_S / 3
            await asyncio.sleep(pause * (0.75 + random.random() / 2))

    async def end(self) -> bool:
        """True when the session is gone; False when the registry could not be told: it ends by its TTL."""
        if not self.id:
            return True
        session, self.id = self.id, ""
        try:
            await self._registry.destroy_session(session)
        except MilkrunError as error:
            structlog.get_logger("session").warning(
                "the session could not be ended", name=self._name, why=str(error)
            )
            return False
        return True
