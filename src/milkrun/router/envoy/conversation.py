"""One Envoy's conversation with its discovery server: what it asked for, has, refused, and should get next. Pure.

The protocol is Envoy's "aggregated, state of the world" xDS. Each request subscribes, and says of the answer that its
nonce names whether it was taken (ACK) or refused (NACK). What is kept here, and why:

- one answer after the other, in the order of `Kind`: nothing points to what Envoy does not have yet. Envoy takes
  clusters (ACK) only when they have their endpoints, and those were probed: so only endpoints do not wait for that.
  Clusters that go are taken away last, when no route leads to them any more;
- a conversation begins with the whole state: what Envoy had before is not asked, and cannot be wrong;
- a cluster that is new or changed waits in Envoy for its endpoints, a listener for its routes: they are sent again
  after it, or it would wait for ever (envoy#13072);
- a new wish waits until the clusters were taken: without the endpoints of the former wish they never would be;
- what was refused is not sent again until it is another; Envoy keeps what it had, and gets nothing that follows:
  a route would lead to what it refused.
"""

from __future__ import annotations

import msgspec

from milkrun.router.envoy.resources import Kind, Snapshot

_FOLLOWS = {Kind.CLUSTERS: Kind.ENDPOINTS, Kind.LISTENERS: Kind.ROUTES}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What Envoy says. `nonce` is empty when it answers nothing; `error` says why it refused that answer."""

    kind: Kind
    names: frozenset[str] = frozenset()
    nonce: str = ""
    error: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What Envoy is told: resources of one kind, by name."""

    kind: Kind
    version: str
    nonce: str
    resources: dict[str, bytes]


class _Subscription:
    """One kind: what Envoy wants of it and has of it. `has` is None before the first answer."""

    def __init__(self) -> None:
        self.names: frozenset[str] | None = None
        self.has: dict[str, bytes] | None = None
        self.nonce = ""
        self.waiting = False
        self.refused = ""


class Conversation:
    """Requests in, answers out, until the stream ends."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = self._later = snapshot
        self._kinds = {kind: _Subscription() for kind in Kind}
        self._count = 0

    def wish(self, snapshot: Snapshot) -> None:
        """From now on Envoy should have this; once it has taken the clusters that it is just being given."""
        self._later = snapshot
        self._turn()

    def _turn(self) -> None:
        if not self._kinds[Kind.CLUSTERS].waiting:
            self._snapshot = self._later

    def hear(self, request: Request) -> None:
        """Envoy has said this. What it says of an older answer than the last is passed over: it will say more."""
        known = self._kinds[request.kind]
        if request.nonce != known.nonce:
            return
        known.names = request.names
        if known.waiting:
            known.waiting = False
            known.refused = request.error
            self._turn()
        if known.has is not None and not request.kind.whole:
            known.has = {name: each for name, each in known.has.items() if name in request.names}

    def next(self) -> Answer | None:
        """The next answer to send; None while Envoy has to speak first, or has all that it should."""
        coming = self._coming()
        return self._answer(*coming) if coming else None

    def _coming(self) -> tuple[Kind, dict[str, bytes]] | None:
        for kind in Kind:
            known = self._kinds[kind]
            if known.waiting and kind is not Kind.CLUSTERS:
                return None
            if kind is Kind.LISTENERS and self._kinds[Kind.CLUSTERS].waiting:
                return None
            if known.waiting or known.names is None:
                continue
            if (resources := self._due(kind)) is not None:
                return kind, resources
            if known.refused:
                return None
        return None

    @property
    def settled(self) -> bool:
        """Whether Envoy has taken all that it should have, with its listeners; or refused some of it."""
        if any(known.waiting for known in self._kinds.values()) or self._snapshot is not self._later:
            return False
        if self.refused:
            return self._coming() is None
        return (
            self._kinds[Kind.LISTENERS].has is not None
            and (self._kinds[Kind.ROUTES].has is not None or not self._snapshot.resources[Kind.ROUTES])
            and all(self._due(kind) is None for kind in Kind)
        )

    @property
    def followed(self) -> bool:
        """Whether Envoy has the clusters and endpoints that it should have, or refused some of it."""
        if self._snapshot is not self._later:
            return False
        if self.refused:
            return True
        kinds = (Kind.CLUSTERS, Kind.ENDPOINTS)
        return all(not self._kinds[kind].waiting and self._due(kind) is None for kind in kinds)

    @property
    def refused(self) -> dict[Kind, str]:
        """Why Envoy does not take what it was last sent of a kind."""
        return {kind: known.refused for kind, known in self._kinds.items() if known.refused}

    def _due(self, kind: Kind) -> dict[str, bytes] | None:
        """What to send of the kind; None when Envoy has it."""
        known = self._kinds[kind]
        if known.names is None:
            return None
        wanted = self._snapshot.resources[kind]
        has = known.has or {}
        if kind is Kind.CLUSTERS and self._leads_elsewhere():
            wanted = {**has, **wanted}
        if kind.whole:
            return wanted if wanted != known.has else None
        changed = {
            name: wanted[name] for name in known.names if name in wanted and has.get(name) != wanted[name]
        }
        return changed or None

    def _leads_elsewhere(self) -> bool:
        """Whether routes or listeners have to change: they may still lead to clusters that are to go."""
        return any(self._due(kind) is not None for kind in (Kind.LISTENERS, Kind.ROUTES))

    def _answer(self, kind: Kind, resources: dict[str, bytes]) -> Answer:
        known = self._kinds[kind]
        before = known.has or {}
        if follower := _FOLLOWS.get(kind):
            same = {name for name, each in resources.items() if before.get(name) == each}
            later = self._kinds[follower]
            if later.has is not None and kind is Kind.CLUSTERS:
                later.has = {name: each for name, each in later.has.items() if name in same}
            elif later.has is not None and len(same) < len(resources):
                later.has = {}
        known.has = dict(resources) if kind.whole else {**before, **resources}
        self._count += 1
        known.nonce = str(self._count)
        known.waiting = True
        known.refused = ""
        return Answer(kind=kind, version=self._snapshot.version, nonce=known.nonce, resources=resources)
