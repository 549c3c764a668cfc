"""Bytes in, bytes out: what both transports answer with."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from milkrun.registry.access.authority import Authority
from milkrun.registry.dns import wire
from milkrun.registry.dns.answers import Answers, Pick
from milkrun.registry.dns.records import Rcode, Reply
from milkrun.registry.dns.zone import Zone
from milkrun.registry.engine import Engine

LOG_EVERY_S = 60.0
KINDS_AT_MOST = 2


class Responder:
    """Answers from what the engine's machine holds at that moment."""

    def __init__(
        self, engine: Engine, pick: Pick, clock: Callable[[], float], *, srv_weight_scale: int = 1
    ) -> None:
        self._engine = engine
        self._pick = pick
        self._clock = clock
        self._scale = srv_weight_scale
        self._answers: dict[Authority, Answers] = {}
        """By what the asker may see. DNS carries no token: there are those on this machine, and the others."""
        self._log = structlog.get_logger("dns")
        self._malformed = 0
        self._quiet_until = float("-inf")

    def answer(self, data: bytes, at_most: int, *, plain: bool, local: bool) -> bytes | None:
        """The answer in at most so many bytes, to a client on this machine or not; None when there must be none.

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
        return wire.write(query, self._for(local=local).reply(query.name, query.type, room), room)

    def malformed(self, why: str) -> None:
        """Counted, and told once a minute at most: anyone can send bytes."""
        self._malformed += 1
        now = self._clock()
        if now >= self._quiet_until:
            self._log.warning("a DNS message was not understood", why=why, messages=self._malformed)
            self._quiet_until = now + LOG_EVERY_S
            self._malformed = 0

    def _for(self, *, local: bool) -> Answers:
        """What the anonymous token lets the client see. A refused write gives the engine another machine."""
        machine = self._engine.machine
        who = self._engine.gate.authority(machine.tokens, b"", local=local)
        found = self._answers.get(who)
        if found is None or found.zone.machine is not machine:
            if len(self._answers) >= KINDS_AT_MOST:
                self._answers.clear()
            found = Answers(Zone(machine, who), self._pick, srv_weight_scale=self._scale)
            self._answers[who] = found
        return found
