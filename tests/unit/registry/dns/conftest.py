from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import dns.message
import dns.name
import dns.rdatatype
import pytest

from milkrun.registry import commands
from milkrun.registry.dns import wire
from milkrun.registry.dns.answers import Answers
from milkrun.registry.dns.zone import Zone
from milkrun.registry.nouns import Check, Node, Service
from milkrun.registry.state import Machine


class Farm:
    """A catalog that the test fills, and its zone."""

    def __init__(self) -> None:
        self.machine = Machine("n1")
        self.do(commands.Announce(Node(id="1", node="n1", address="127.0.0.1")))
        self.random = random.Random(1)
        self.answers = Answers(Zone(self.machine), self.pick)

    @property
    def zone(self) -> Zone:
        return self.answers.zone

    def pick(self, items: Sequence[Any], count: int) -> list[Any]:
        return self.random.sample(items, min(count, len(items)))

    def do(self, command: commands.Command) -> None:
        self.machine.apply(command, 1.0)
        self.machine.ledger.take()

    def node(self, name: str, address: str, **fields: Any) -> None:
        node = Node(id=name, node=name, address=address, **fields)
        self.do(commands.CatalogRegister(name=name, node=node, service=None, checks=[]))

    def goat(
        self, service_id: str = "goat-1", address: str = "10.0.0.1", *, on: str = "n1", **fields: Any
    ) -> None:
        wanted = {"service": "goat", "port": 8101, **fields}
        service = Service(id=service_id, address=address, **wanted)
        self.do(commands.CatalogRegister(name=on, node=None, service=service, checks=[]))

    def check(self, status: str, service_id: str = "goat-1", *, on: str = "n1") -> None:
        check = Check(node=on, check_id=f"check {service_id}", name="c", status=status, service_id=service_id)
        self.do(commands.CatalogRegister(name=on, node=None, service=None, checks=[check]))

    def drop(self, service_id: str) -> None:
        self.do(commands.CatalogDeregister(node="n1", service_id=service_id, check_id=""))

    def ask(self, name: str, kind: str = "A", *, limit: int = 65_535) -> dns.message.Message:
        """The answer as a client of DNS reads it."""
        return dns.message.from_wire(self.bytes(name, kind, limit=limit))

    def bytes(self, name: str, kind: str = "A", *, limit: int = 65_535) -> bytes:
        data = dns.message.make_query(name, kind, use_edns=False).to_wire()
        query = wire.read(data)
        assert query is not None
        answer = wire.write(query, self.answers.reply(query.name, query.type, limit), limit)
        assert len(answer) <= limit
        return answer

    def records(self, name: str, kind: str = "A") -> list[str]:
        """The answer's records, sorted; or how it ended instead."""
        message = self.ask(name, kind)
        found = [
            f"{dns.rdatatype.to_text(rrset.rdtype)} {record.to_text()}"
            for rrset in message.answer
            for record in rrset
        ]
        if found:
            return sorted(found)
        assert [rrset.rdtype for rrset in message.authority] in ([dns.rdatatype.SOA], [])
        return [dns.rcode.to_text(message.rcode())]


@pytest.fixture
def farm() -> Farm:
    return Farm()


@pytest.fixture(scope="session")
def make_farm() -> Callable[[], Farm]:
    return Farm
