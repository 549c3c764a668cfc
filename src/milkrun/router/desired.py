"""What the data plane should do, from what the registry says. Pure: the same facts give the same answer.

Invariants (DESIGN.md §4), each with a test that goes red without its guard:
- I2  instances that vanish without a deregistration, maintenance or failed probe to explain it, and that are
      more than half of those serving, or the last one, go on serving;
- I4  a wish with an older generation than the accepted one is refused;
- I5  under half healthy, the stable versions' instances all serve, but for those in maintenance;
- the shares of a service that has an instance to serve sum to 10,000 slots, unless git says maintenance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache

import msgspec

from milkrun.model import (
    SHARE_SLOTS,
    CommitId,
    Health,
    Instance,
    InstanceId,
    ServiceName,
    VersionName,
    Wish,
)
from milkrun.router import admission
from milkrun.router.placement import Placement, place

_REMEMBERED = 65_536

Ids = frozenset[InstanceId]
"""Servers: of ten thousand mostly one has changed since the last decision."""


class Mode(StrEnum):
    """Whether a server takes new requests (serve) or only ends those it has (drain)."""

    SERVE = "serve"
    DRAIN = "drain"


_SERVE, _DRAIN = Mode.SERVE, Mode.DRAIN
"""Asked for once a server: to find a member in its enum takes longer than to compare it."""


class Server(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One instance in the data plane. Address and id have passed the encoders."""

    id: InstanceId
    address: str
    port: int
    weight: int = 1
    mode: Mode = Mode.SERVE


class RoutingState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a data plane needs to know of one service, in no data plane's words.

    `shares` are slots of 0.01 % by version: they sum to 10,000, or are empty when nobody may serve. `placement` says
    which slots; without one, no matter which.
    """

    shares: dict[VersionName, int] = {}
    placement: Placement = ()
    versions: dict[VersionName, dict[InstanceId, Server]] = {}

    @property
    def size(self) -> int:
        """How many servers there are."""
        return sum(map(len, self.versions.values()))

    def serving(self) -> dict[InstanceId, VersionName]:
        """The instances that take new requests when their version has a share."""
        return {
            server.id: version
            for version, servers in self.versions.items()
            for server in servers.values()
            if server.mode is _SERVE
        }


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a router carries from one decision to the next, also over its own restart.

    `braked` are the instances that serve only because nothing explains why they vanished. `home` is the placement
    that git asks for: whoever is served by another version while the own one has nobody to serve comes back to it.
    """

    state: RoutingState = RoutingState()
    braked: Ids = frozenset()
    home: Placement = ()
    wish: Wish = Wish()
    commit: CommitId | None = None
    generation: int = 0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve now, and what to remember.

    `held` says why the wish of git is not served; `alarms` what else a person should know.
    """

    known: Known
    held: list[str] = []
    alarms: list[str] = []

    @property
    def state(self) -> RoutingState:
        """The routing state to serve."""
        return self.known.state


def desired(instances: Iterable[Instance], wish: Wish, known: Known, *, down: Ids = frozenset()) -> Decision:
    """The decision for one service from the catalog, git's wish and what was decided before.

    `down` names the servers that the data plane itself cannot connect to: positive evidence that they are gone.
    """
    held: list[str] = []
    alarms: list[str] = []
    wish = _accepted(wish, known, held)
    found = list(instances)
    valid = admission.fitting(admission.valid(found, alarms), wish, known.state.versions, alarms)
    healthy = frozenset(instance.id for instance in valid if instance.healthy)
    braked = _braked(valid, healthy, known, down | admission.withdrawn(found), alarms)
    serve = healthy | braked | _opened(valid, healthy, wish, braked, alarms)
    pool = _pool(valid, serve, known.state, braked)
    shares = _shares(pool, wish, known.state, held)
    home = place(known.home, asked) if (asked := slots(wish.weights) or shares) else known.home
    mark = wish.mark
    followed = mark is not None and not held
    return Decision(
        known=Known(
            state=RoutingState(shares=shares, placement=place(home, shares), versions=pool),
            braked=braked,
            home=home,
            wish=wish,
            commit=mark.commit if mark and followed else known.commit,
            generation=mark.generation if mark and followed else known.generation,
        ),
        held=held,
        alarms=admission.told(alarms),
    )


def _accepted(wish: Wish, known: Known, held: list[str]) -> Wish:
    """The wish to follow: the new one, or the known one when the new one is older or has lost its commit."""
    before = known.wish.mark
    if before is None:
        return wish
    if wish.mark is None:
        held.append(
            f"the registry has lost the commit that the weights came from; still serving {before.commit[:12]}"
        )
        return known.wish
    if wish.mark.generation < before.generation:
        held.append(
            f"the registry offers generation {wish.mark.generation}, older than {before.generation}; still"
            f" serving {before.commit[:12]} (restart the router with --accept-older if this is meant)"
        )
        return known.wish
    return wish


def _pool(
    instances: list[Instance], serve: Ids, before: RoutingState, braked: Ids
) -> dict[VersionName, dict[InstanceId, Server]]:
    """All servers by version and id, each with its mode."""
    pool: dict[VersionName, dict[InstanceId, Server]] = {}
    for instance in instances:
        mode = _SERVE if instance.id in serve else _DRAIN
        pool.setdefault(instance.version, {})[instance.id] = _server(instance, mode)
    if braked and (vanished := braked - {instance.id for instance in instances}):
        serving = before.serving()
        for name in vanished:
            pool.setdefault(serving[name], {})[name] = before.versions[serving[name]][name]
        pool = {version: dict(sorted(servers.items())) for version, servers in pool.items()}
    return dict(sorted(pool.items()))


@lru_cache(_REMEMBERED)
def _server(instance: Instance, mode: Mode) -> Server:
    return Server(
        id=instance.id, address=instance.address, port=instance.port, weight=instance.weight, mode=mode
    )


def _braked(instances: list[Instance], healthy: Ids, known: Known, gone: Ids, alarms: list[str]) -> Ids:
    """The instances that go on serving although the registry no longer vouches for them (I2).

    Whoever is well, or of whom there is evidence that they are `gone`, is accounted for.
    """
    serving = known.state.serving()
    doubted = serving.keys() - healthy - gone
    owners = {(instance.address, instance.port): instance.id for instance in instances} if doubted else {}
    servers = {name: known.state.versions[serving[name]][name] for name in doubted}
    vanished = frozenset(
        name
        for name, server in servers.items()
        if owners.get((server.address, server.port), name)
        == name  # another's at its address: it was replaced
    )
    most = 2 * len(vanished) > len(serving) or not healthy
    braked = vanished if most else vanished & known.braked
    if braked:
        alarms.append(
            f"{len(braked)} of {len(serving)} serving instances vanished with no deregistration, maintenance or"
            f" failed probe to explain it; they go on serving while they accept connections:"
            f" {', '.join(sorted(braked)[:5])}"
        )
    return braked


def _opened(instances: list[Instance], healthy: Ids, wish: Wish, braked: Ids, alarms: list[str]) -> Ids:
    """The unhealthy instances that serve all the same, because under half of the service is healthy (I5)."""
    if len(healthy) == len(instances):
        return frozenset()
    weights = wish.weights
    maintenance = Health.MAINTENANCE
    taking = [
        instance
        for instance in instances
        if instance.health is not maintenance and (not weights or weights.get(instance.version, 0) > 0)
    ]
    well = healthy.intersection(instance.id for instance in taking)
    if not taking or 2 * len(well) >= len(taking):
        return frozenset()
    most = max((weights.get(instance.version, 0) for instance in taking), default=0)
    stable = {instance.id for instance in taking if not weights or weights[instance.version] == most}
    opened = frozenset(stable - well)
    if opened - braked:
        alarms.append(
            f"only {len(well)} of {len(taking)} instances are healthy, so all that are"
            " not in maintenance serve (the checks may be what is broken)"
        )
    return opened


def _shares(
    pool: Mapping[VersionName, Mapping[InstanceId, Server]],
    wish: Wish,
    before: RoutingState,
    held: list[str],
) -> dict[VersionName, int]:
    """Each version's slots. A weighted version with nobody to serve gives its share to the others in proportion."""
    able = {
        version: sum(server.mode is _SERVE for server in servers.values())
        for version, servers in pool.items()
    }
    able = {version: count for version, count in able.items() if count}
    weights = wish.weights
    if not weights:
        return slots({version: float(count) for version, count in able.items()})
    if not any(weights.values()) and wish.maintenance:
        return {}
    effective = {version: weights[version] for version in able if weights.get(version, 0) > 0}
    if effective:
        return slots(effective)
    last = {version: float(share) for version, share in before.shares.items() if version in able}
    if last:
        wanted = ", ".join(version for version, weight in weights.items() if weight > 0) or "no version"
        held.append(f"git gives the traffic to {wanted}, which has nobody to serve it; the last shares stay")
    return slots(last)


def slots(weights: Mapping[VersionName, float]) -> dict[VersionName, int]:
    """10,000 slots divided in proportion to the weights, by largest remainder: each within one slot of exact.

    Ties go to the earlier name. Empty when no weight is above zero.
    """
    largest = max(weights.values(), default=0.0)
    if largest <= 0:
        return {}
    scaled = {version: weight / largest for version, weight in weights.items() if weight > 0}
    total = sum(scaled.values())
    exact = {version: weight * SHARE_SLOTS / total for version, weight in scaled.items()}
    whole = {version: int(share) for version, share in exact.items()}
    by_remainder = sorted(exact, key=lambda version: (whole[version] - exact[version], version))
    missing = SHARE_SLOTS - sum(whole.values())
    for version in by_remainder[:missing]:
        whole[version] += 1
    return {version: share for version, share in sorted(whole.items()) if share}


def sentence(service: ServiceName, state: RoutingState) -> str:
    """What was decided, in one line for the log and for people."""
    if not state.shares:
        return f"{service}: nobody serves"
    parts = []
    for version, share in state.shares.items():
        count = sum(server.mode is _SERVE for server in state.versions[version].values())
        parts.append(f"{version} takes {share / 100:.2f} % on {count} instance{'s' * (count != 1)}")
    draining = sum(
        server.mode is _DRAIN for servers in state.versions.values() for server in servers.values()
    )
    return f"{service}: " + ", ".join(parts) + (f"; {draining} not in service" if draining else "")
