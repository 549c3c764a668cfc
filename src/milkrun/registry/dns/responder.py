"""Bytes in, bytes out: what both transports answer with."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from milkrun.registry.dns import wire
from milkrun.registry.dns.answers import Answers, Pick
from milkrun.registry.dns.records import Rcode, Reply
from milkrun.registry.dns.zone import Zone
from milkrun.registry.engine import Engine

LOG_EVERY_S = 60.0


class Responder:
    """Answers from what the engine's machine holds at that moment."""

    def __init__(
        self, engine: Engine, pick: Pick, clock: Callable[[], float], *, srv_weight_scale: int = 1
    ) -> None:
        self._engine = engine
        self._pick = pick
        self._clock = clock
        self._scale = srv_weight_scale
        self._answers = self._fresh()
        self._log = structlog.get_logger("dns")
        self._malformed = 0
        self._quiet_until = float("-inf")

    def answer(self, data: bytes, at_most: int, *, plain: bool) -> bytes | None:
        """The answer in at most so many bytes; None when there must be none.

        `plain` answers are also no longer than the client said that it takes (512 bytes if it said nothing).
        """
        query = wire.read(data)
        if query is None:
            self.malformed("it is no question")
            return None
        room = min(at_most, query.payload) if plain else at_most
        if query.fault is not None:
            if query.fault is Rcode.FORMERR:
                self.malformed("it cannot be read")
            return wire.write(query, Reply(rcode=query.fault, authoritative=False), room)
        # A refused write gives the engine another machine.
        if self._answers.zone.machine is not self._engine.machine:
            self._answers = self._fresh()
        return wire.write(query, self._answers.reply(query.name, query.type, room), room)

    def malformed(self, why: str) -> None:
        """Counted, and told once a minute at most: anyone can send bytes."""
        self._malformed += 1
        now = self._clock()
        if now >= self._quiet_until:
            self._log.warning("a DNS message was not understood", why=why, messages=self._malformed)
            self._quiet_until = now + LOG_EVERY_S
            self._malformed = 0

    def _fresh(self) -> Answers:
        return Answers(Zone(self._engine.machine), self._pick, srv_weight_scale=self._scale)
