"""A small crowded world: few names, so that random changes meet what belongs to others."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from milkrun.registry import commands
from milkrun.registry.access.authority import ALL, Authority
from milkrun.registry.access.permits import guard
from milkrun.registry.access.rules import SINGLE, Level, Resource, Rule
from milkrun.registry.access.tokens import MANAGEMENT_ID, Policy, Role, Token
from milkrun.registry.autopilot import Configuration
from milkrun.registry.commands import AnyOp, CheckOp, NodeOp, ServiceOp, TxnOp
from milkrun.registry.events import Event
from milkrun.registry.nouns import (
    NODE_CHECK,
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE,
    STATUSES,
    Check,
    CheckSpec,
    Node,
    Service,
    ServiceCheckRef,
    Session,
)
from milkrun.registry.refusal import Refused
from milkrun.registry.state import _DECODERS, Machine

OWN = Node(id="00000000-0000-0000-0000-00000000000a", node="n1", address="127.0.0.1")
NODES = ["n1", "n2", "n3"]
NAMES = ["goat", "goat-old", "hen", "cow"]
IDS = ["goat-1", "hen-1", "cow-1", "x"]
CHECKS = ["c1", "c2", "c3", NODE_CHECK, NODE_MAINTENANCE, f"{SERVICE_MAINTENANCE}hen-1"]
KEYS = ["a", "a/", "a/1", "a/2", "b", "b/1", "b/1/x"]
SESSIONS = [f"{number:08d}-0000-0000-0000-000000000000" for number in range(6)]
UUIDS = [f"{number:08d}-1111-1111-1111-111111111111" for number in range(3)]
KV_VERBS = [
    "set", "cas", "lock", "unlock", "get", "get-tree", "check-index", "check-session", "check-not-exists",
    "delete", "delete-cas", "delete-tree",
]  # fmt: skip
VERBS = ["set", "set", "get", "get", "delete", "cas", "delete-cas"]

LEVELS = [Level.DENY, Level.READ, Level.WRITE, Level.WRITE, Level.WRITE]

Rows = dict[tuple[str, str], Any]


class World:
    """A machine and what its disk holds, decoded. `do` gives what the rows were and are that a change touched."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.machine = Machine("n1")
        self.rows: Rows = {}
        self.now = 1000.0
        self.do(ALL, commands.Announce(OWN))
        for command in populated():
            self.do(ALL, command)

    def do(self, who: Authority, command: commands.Command) -> tuple[Rows, Rows, bool]:
        """Before and after, of what changed, and whether it was allowed."""
        self.now += 0.01
        try:
            refused = guard(who, command, self.machine)
            if refused is None:
                self.machine.apply(command, self.now)
        except Refused as refusal:
            refused = refusal
        taken, _, _ = self.machine.ledger.take()
        before = {row: self.rows.get(row) for row in taken}
        after = {row: body and _DECODERS[row[0]].decode(body) for row, body in taken.items()}
        self.rows.update(after)
        return before, after, refused is None

    def any_command(self) -> commands.Command:
        return MAKERS[self.chance.choice([*MAKERS, commands.Txn, commands.Txn, commands.Txn])](self)

    # What random changes are made of

    def key(self) -> str:
        return self.chance.choice(KEYS)

    def session_id(self) -> str:
        """Mostly one that lives."""
        return self.chance.choice([SESSIONS[0], *sorted(self.machine.sessions.live)])

    def index(self) -> int:
        """Often one that something has."""
        known = [getattr(row, "modify_index", 0) for row in self.rows.values() if row]
        return self.chance.choice([0, *known])

    def node(self) -> Node:
        return Node(node=self.chance.choice(NODES), address=self.chance.choice(["10.0.0.1", "10.0.0.2"]))

    def service(self) -> Service:
        return Service(
            id=self.chance.choice(IDS), service=self.chance.choice(NAMES), port=self.chance.choice([1, 2])
        )

    def check(self, node: str = "") -> Check:
        return Check(
            node=node or self.chance.choice(NODES),
            check_id=self.chance.choice(CHECKS),
            name="c",
            status=self.chance.choice(STATUSES),
            service_id=self.chance.choice(["", *IDS]),
        )

    def spec(self, service_id: str | None = None) -> CheckSpec:
        return CheckSpec(
            check_id=self.chance.choice(CHECKS),
            name="c",
            status=self.chance.choice(STATUSES),
            service_id=self.chance.choice(["", *IDS]) if service_id is None else service_id,
            ttl_s=self.chance.choice([10.0, 20.0]),
        )

    def transaction(self) -> commands.Txn:
        """Its operations speak of one place, mostly: what one of them says may mislead about another."""
        node, service_id = self.chance.choice(NODES), self.chance.choice(IDS)

        def nearby(found: Any) -> Any:
            here: dict[str, Any] = {"node": node} if self.chance.random() < 0.8 else {}
            if isinstance(found, Check) and found.service_id and self.chance.random() < 0.8:
                here["service_id"] = service_id
            if isinstance(found, Service):
                here = {"id": service_id} if self.chance.random() < 0.8 else {}
            return msgspec.structs.replace(found, **here)

        return commands.Txn([self.operation(node, nearby) for _ in range(self.chance.randrange(1, 5))])

    def operation(self, node: str, nearby: Callable[[Any], Any]) -> AnyOp:
        match self.chance.randrange(6):
            case 0:
                return TxnOp(
                    verb=self.chance.choice(KV_VERBS),
                    key=self.key(),
                    value=b"t",
                    index=self.index(),
                    session=self.session_id(),
                )
            case 1:
                return NodeOp(self.chance.choice(VERBS), nearby(self.node()), self.index())
            case 2 | 3:
                return ServiceOp(self.chance.choice(VERBS), node, nearby(self.service()), self.index())
            case _:
                return CheckOp(self.chance.choice(VERBS), nearby(self.check()), self.index())

    def registered(self) -> commands.RegisterService:
        service = self.service()
        specs = [self.spec(service.id) for _ in range(self.chance.randrange(3))]
        return commands.RegisterService(service, specs, replace_checks=self.chance.random() < 0.3)

    def catalogued(self) -> commands.CatalogRegister:
        node = self.chance.choice(NODES)
        given = self.chance.choice(
            [None, Node(node=node, address=self.chance.choice(["10.0.0.1", "10.0.0.2"]))]
        )
        if node not in self.machine.catalog.nodes:
            given = Node(node=node, address="10.0.0.1")
        checks = [self.check(node) for _ in range(self.chance.randrange(3))]
        return commands.CatalogRegister(node, given, self.chance.choice([None, self.service()]), checks)

    def session(self) -> Session:
        return Session(
            id=str(uuid.UUID(int=self.chance.getrandbits(128))),  # as the handler makes them: nobody's yet
            node=self.chance.choice(NODES),
            behavior=self.chance.choice(["release", "delete"]),
            lock_delay=self.chance.choice([0, 1_000_000_000]),
            node_checks=self.chance.sample([NODE_CHECK, "c1"], self.chance.randrange(2)),
            service_checks=self.chance.choice([None, [ServiceCheckRef(id="c2")]]),
        )


def _policy(world: World) -> Policy:
    return Policy(id=world.chance.choice(UUIDS), name=world.chance.choice(["p", "q", "r"]))


def _role(world: World) -> Role:
    return Role(
        id=world.chance.choice(UUIDS),
        name=world.chance.choice(["p", "q", "r"]),
        policies=world.chance.choice([[], [MANAGEMENT_ID]]),
    )


def _token(world: World) -> Token:
    return Token(
        accessor=world.chance.choice(UUIDS),
        digest=world.chance.choice(["d1", "d2", "d3"]),
        policies=world.chance.choice([[], [MANAGEMENT_ID]]),
    )


MAKERS: dict[type[commands.Command], Callable[[World], commands.Command]] = {
    commands.KvPut: lambda world: commands.KvPut(world.key(), b"p"),
    commands.KvCas: lambda world: commands.KvCas(world.key(), b"c", 0, world.index()),
    commands.KvLock: lambda world: commands.KvLock(world.key(), b"l", 0, world.session_id()),
    commands.KvUnlock: lambda world: commands.KvUnlock(world.key(), b"u", 0, world.session_id()),
    commands.KvDelete: lambda world: commands.KvDelete(world.key()),
    commands.KvDeleteCas: lambda world: commands.KvDeleteCas(world.key(), world.index()),
    commands.KvDeleteTree: lambda world: commands.KvDeleteTree(world.chance.choice(["", *KEYS])),
    commands.Txn: World.transaction,
    commands.RegisterService: World.registered,
    commands.DeregisterService: lambda world: commands.DeregisterService(world.chance.choice(IDS)),
    commands.RegisterCheck: lambda world: commands.RegisterCheck(world.spec()),
    commands.DeregisterCheck: lambda world: commands.DeregisterCheck(world.chance.choice(CHECKS)),
    commands.ReportCheck: lambda world: commands.ReportCheck(
        world.chance.choice(CHECKS), world.chance.choice(STATUSES), "said"
    ),
    commands.MaintainService: lambda world: commands.MaintainService(
        world.chance.choice(IDS), world.chance.random() < 0.5, ""
    ),
    commands.MaintainNode: lambda world: commands.MaintainNode(world.chance.random() < 0.5, ""),
    commands.CatalogRegister: World.catalogued,
    commands.CatalogDeregister: lambda world: commands.CatalogDeregister(
        world.chance.choice(NODES),
        world.chance.choice(["", *IDS]),
        world.chance.choice(["", *CHECKS]),
    ),
    commands.HearEvent: lambda world: commands.HearEvent(Event(id=UUIDS[0], name=world.chance.choice(NAMES))),
    commands.Restore: lambda world: commands.Restore(
        msgspec.structs.replace(world.machine.whole(), entries=[])
    ),
    commands.CreateSession: lambda world: commands.CreateSession(world.session()),
    commands.RenewSession: lambda world: commands.RenewSession(world.session_id()),
    commands.DestroySession: lambda world: commands.DestroySession(world.session_id()),
    commands.PutToken: lambda world: commands.PutToken(_token(world)),
    commands.DropToken: lambda world: commands.DropToken(world.chance.choice(UUIDS)),
    commands.PutPolicy: lambda world: commands.PutPolicy(_policy(world)),
    commands.DropPolicy: lambda world: commands.DropPolicy(world.chance.choice(UUIDS)),
    commands.ConfigureAutopilot: lambda world: commands.ConfigureAutopilot(
        Configuration(min_quorum=world.index()), world.chance.choice([None, world.index()])
    ),
    commands.PutRole: lambda world: commands.PutRole(_role(world)),
    commands.DropRole: lambda world: commands.DropRole(world.chance.choice(UUIDS)),
}
"""One random change of each kind that a client may ask for."""

THE_REGISTRYS_OWN: list[commands.Command] = [
    commands.Announce(OWN),
    commands.Expire(),
    commands.ReportProbe(CheckSpec(check_id="c1"), "passing", ""),
]
"""What only the registry itself does: no client's token is enough, but one that may do everything."""


def populated() -> list[commands.Command]:
    """Something of everybody's is there to begin with, sessions that hold keys among it."""
    found: list[commands.Command] = [
        commands.CatalogRegister(node, Node(node=node, address="10.0.0.1"), None, []) for node in NODES[1:]
    ]
    for service_id, name in zip(IDS, NAMES, strict=True):
        specs = [CheckSpec(check_id="c2", status="passing", service_id=service_id, ttl_s=10.0)]
        found += [
            commands.CatalogRegister("n2", None, Service(id=service_id, service=name), []),
            commands.RegisterService(
                Service(id=service_id, service=name), specs if service_id == "hen-1" else []
            ),
        ]
    found += [commands.KvPut(key, b"first") for key in KEYS]
    for session_id, key in zip(SESSIONS[:3], KEYS[2:], strict=False):
        found += [
            commands.CreateSession(Session(id=session_id, node="n1", node_checks=[], lock_delay=0)),
            commands.KvLock(key, b"held", 0, session_id),
        ]
    return found


def any_rules(chance: random.Random) -> list[Rule]:
    """Some rules; never all that there could be."""
    names = {
        Resource.KEY: ["", *KEYS],
        Resource.NODE: ["", *NODES],
        Resource.SERVICE: ["", *NAMES],
        Resource.SESSION: ["", *NODES],
        Resource.EVENT: ["", *NAMES],
    }
    found = [
        Rule(resource, chance.choice(of), chance.choice(LEVELS), prefix=chance.random() < 0.7)
        for resource, of in names.items()
        for _ in range(chance.randrange(4))
    ]
    written = {Resource.OPERATOR: chance.choice(LEVELS)}
    single = [Rule(each, "", written.get(each, Level.READ), prefix=True) for each in sorted(SINGLE)]
    return [*found, *chance.sample(single, chance.randrange(len(single)))]
