"""What whoever asks may do: the rules of their token, or of having none. Pure, but for the clock it is given.

Three modes. `open`: everyone may do everything. `default`: who asks from this machine may read everything but
the tokens; all else needs a token. `closed`: everything needs one. In the last two the anonymous token's own
policies hold for everyone who shows none.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable
from enum import StrEnum

from milkrun.registry.access.rules import ALL_READS, EVERYTHING, Level, Resource, Rule, Rules
from milkrun.registry.access.tokens import OWN_ID, Tokens, digest_of
from milkrun.registry.refusal import Refused

REMEMBERED_AT_MOST = 1024
_READABLE = tuple(rule.resource for rule in ALL_READS)


class Mode(StrEnum):
    """How access is controlled."""

    OPEN = "open"
    DEFAULT = "default"
    CLOSED = "closed"


class Authority:
    """What one asker may do. `accessor` names their token, empty for none.

    `writes_all` and `reads_all` say that no name needs to be looked at (`reads_all` leaves out the tokens);
    `expires` is when their token does, by the wall clock.
    """

    def __init__(self, rules: Iterable[Rule], accessor: str = "", expires: float | None = None) -> None:
        self.rules = Rules(rules)
        self.accessor = accessor
        self.expires = expires
        self.writes_all = self._all(Level.WRITE, tuple(Resource))
        self.reads_all = self._all(Level.READ, _READABLE)

    def may(self, resource: Resource, name: str, level: Level) -> bool:
        """Whether the rules grant this much on this name."""
        return self.rules.level(resource, name) >= level

    def reads(self, resource: Resource, name: str) -> bool:
        """Whether this may be read."""
        if self.reads_all and resource in _READABLE:
            return True
        return self.rules.level(resource, name) >= Level.READ

    def writes(self, resource: Resource, name: str = "") -> bool:
        """Whether this may be changed."""
        return self.writes_all or self.rules.level(resource, name) is Level.WRITE

    def writes_below(self, resource: Resource, prefix: str) -> bool:
        """Whether everything whose name starts with `prefix` may be changed."""
        return self.writes_all or self.rules.level_below(resource, prefix) is Level.WRITE

    def _all(self, level: Level, resources: tuple[Resource, ...]) -> bool:
        return all(self.rules.level_below(each, "") >= level for each in resources)


ALL = Authority(EVERYTHING)
"""The registry itself, and everyone when access is open."""


class Gate:
    """Gives each asker their authority. `own_digest` is that of the registry's own token.

    `now` tells the time by the wall clock. It is asked at each request of a token that expires: neither a restart
    nor a restore makes one live longer.
    """

    def __init__(
        self, mode: Mode = Mode.OPEN, own_digest: str = "", now: Callable[[], float] = time.time
    ) -> None:
        self.mode = mode
        self.now = now
        self._own_digest = own_digest
        self._own = Authority(EVERYTHING, OWN_ID)
        self._known: dict[tuple[str, bool], Authority] = {}
        self._as_of: tuple[Tokens | None, int] = (None, -1)

    def authority(self, tokens: Tokens, secret: bytes, *, local: bool) -> Authority:
        """What the holder of this secret may do; an empty secret is none. `local`: they ask from this machine.

        Raises Refused (403) for a secret that no token has, or one that has expired.
        """
        if self.mode is Mode.OPEN:
            return ALL
        if self._as_of[0] is not tokens or self._as_of[1] != tokens.version:
            self._as_of = (tokens, tokens.version)
            self._known.clear()
        digest = digest_of(secret) if secret else ""
        known = self._known.get((digest, local))
        if known is None:
            known = self._made(tokens, digest, local=local)
            if len(self._known) >= REMEMBERED_AT_MOST:
                self._known.clear()
            self._known[digest, local] = known
        if known.expires is not None and self.now() >= known.expires:
            raise Refused(403, "ACL not found")
        return known

    def _made(self, tokens: Tokens, digest: str, *, local: bool) -> Authority:
        if not digest:
            free = ALL_READS if local and self.mode is Mode.DEFAULT else []
            return Authority([*free, *tokens.rules_of(tokens.anonymous)])
        if hmac.compare_digest(digest, self._own_digest):
            return self._own
        token = tokens.holder(digest)
        if token is None or not hmac.compare_digest(digest, token.digest):
            raise Refused(403, "ACL not found")
        return Authority(tokens.rules_of(token), token.accessor, token.expires)


def is_local(peer: str) -> bool:
    """Whether the client's address is a loopback one: it asks from this machine, or through a proxy on it."""
    return peer.startswith(("127.", "::ffff:127.")) or peer == "::1"
