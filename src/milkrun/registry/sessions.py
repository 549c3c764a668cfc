"""Sessions: what they hold, what ends them, and what becomes of their locks. Pure.

Consul gives a session up to twice its TTL before it ends it, and clients count on that (Patroni asks for half
the TTL that it means): so do we.
"""

from __future__ import annotations

import msgspec

from milkrun.registry import topics
from milkrun.registry.deadlines import Deadlines, Timer
from milkrun.registry.duration import seconds
from milkrun.registry.kv import KeyValues
from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import Check, Session

KIND, DELAY_KIND = "session", "lock-delay"
GRACE = 2
"""A session ends this many TTLs after it was last renewed."""


class LockDelay(msgspec.Struct, frozen=True):
    """A key that may not be locked for a while, because its holder did not let go of it by itself."""

    key: str
    delay_s: float


class Sessions:
    """The live sessions, and the keys under a lock-delay."""

    def __init__(self, ledger: Ledger, kv: KeyValues, deadlines: Deadlines) -> None:
        self._ledger = ledger
        self._kv = kv
        self._deadlines = deadlines
        self.live: dict[str, Session] = {}
        self.delayed: set[str] = set()
        self._by_check: dict[tuple[str, str], set[str]] = {}

    def load(self, session: Session, now: float) -> None:
        """The session is there, with its whole time to live before it."""
        self.live[session.id] = session
        for check_id in session.check_ids:
            self._by_check.setdefault((session.node, check_id), set()).add(session.id)
        self.renew(session.id, now)

    def load_delay(self, delay: LockDelay, now: float) -> None:
        """The key cannot be locked for its whole delay."""
        self.delayed.add(delay.key)
        self._deadlines.set(Timer.LOCK_DELAY, delay.key, now + delay.delay_s)

    def of_node(self, node: str | None = None) -> list[Session]:
        """The sessions, or those of one node, by id."""
        return [each for _, each in sorted(self.live.items()) if node is None or each.node == node]

    def create(self, session: Session, now: float) -> str:
        """The session lives; its id."""
        index = self._ledger.bump()
        stamped = msgspec.structs.replace(session, create_index=index, modify_index=index)
        self.load(stamped, now)
        self._ledger.put(KIND, session.id, stamped)
        self._ledger.touch(topics.SESSIONS, topics.session(session.id), topics.node(session.node))
        return session.id

    def revive(self, session: Session, now: float) -> None:
        """The session, which had ended, lives again as it was."""
        self.load(session, now)
        self._ledger.put(KIND, session.id, session)
        self._ledger.touch(topics.SESSIONS, topics.session(session.id), topics.node(session.node))

    def renew(self, session_id: str, now: float) -> Session | None:
        """The session, with its time to live started anew; None when there is none."""
        session = self.live.get(session_id)
        if session and session.ttl:
            self._deadlines.set(Timer.SESSION, session_id, now + GRACE * seconds(session.ttl))
        return session

    def end(self, session_id: str, now: float) -> None:
        """The session is gone; what it held is released or deleted, and cannot be locked for its delay."""
        session = self.live.pop(session_id, None)
        if session is None:
            return
        self._deadlines.cancel(Timer.SESSION, session_id)
        for check_id in session.check_ids:
            sessions = self._by_check[session.node, check_id]
            sessions.discard(session_id)
            if not sessions:
                del self._by_check[session.node, check_id]
        self._ledger.drop(KIND, session_id)
        self._ledger.touch(topics.SESSIONS, topics.session(session_id), topics.node(session.node))
        for key in sorted(self._kv.held.get(session_id, ())):
            self._let_go(session, key, now)

    def fail(self, check: Check, now: float) -> None:
        """The sessions that depended on the check are gone."""
        for session_id in sorted(self._by_check.get((check.node, check.check_id), ())):
            self.end(session_id, now)

    def end_of_node(self, node: str, now: float) -> None:
        """The sessions of a node that is gone are gone."""
        for session in self.of_node(node):
            self.end(session.id, now)

    def delay_over(self, key: str) -> None:
        """The key may be locked again."""
        self.delayed.discard(key)
        self._ledger.drop(DELAY_KIND, key)

    def _let_go(self, session: Session, key: str, now: float) -> None:
        entry = self._kv.get(key)
        if entry is None:
            return
        if session.behavior == "delete":
            self._kv.erase(key)
        else:
            index = self._ledger.bump()
            self._kv.write(msgspec.structs.replace(entry, session=msgspec.UNSET, modify_index=index))
        if session.lock_delay > 0:
            delay = LockDelay(key, session.lock_delay / 1e9)
            self.load_delay(delay, now)
            self._ledger.put(DELAY_KIND, key, delay)
